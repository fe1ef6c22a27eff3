"""What an agent sees: a table [S, *shape], one row for each state, so that looking is a gather.

| kind        | row of the table                                                                    |
|-------------|-------------------------------------------------------------------------------------|
| index       | int64 [], the state's number: for tables of values                                  |
| one-hot     | float32 [S]: for networks on small worlds                                           |
| coordinates | float32 [2], row and column, each from -1 (first) to 1 (last)                       |
| planes      | float32 [C, H, W], 0 or 1: the agent, then a plane for each of `PLANES`, for a CNN  |
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from envs.layout import LOOKS, Layout

PLANES = ("wall", "goal", "forbidden", "hole")
LIMIT = 2**30  # numbers in a table: 4 GiB of float32


class ObservationError(ValueError):
    """A kind of observation that does not exist, or that this world does not have."""


def index(states: int, layout: Layout | None) -> Int64[Tensor, "S"]:
    """The state's own number."""
    return torch.arange(states)


def one_hot(states: int, layout: Layout | None) -> Float32[Tensor, "S S"]:
    """1 at the state's number, 0 elsewhere."""
    _check_size("one-hot", states, states)
    return torch.eye(states)


def coordinates(states: int, layout: Layout | None) -> Float32[Tensor, "S 2"]:
    """Row and column, each scaled to -1 ... 1 (0 where the map has a single one)."""
    layout = _mapped("coordinates", layout)
    last = torch.tensor([layout.rows - 1, layout.cols - 1])
    return torch.where(last > 0, 2 * layout.cell / last.clamp(min=1) - 1, 0.0)


def planes(states: int, layout: Layout | None) -> Float32[Tensor, "S C H W"]:
    """The agent's cell, then the cells of each look in `PLANES`."""
    layout = _mapped("planes", layout)
    _check_size("planes", states, (1 + len(PLANES)) * layout.rows * layout.cols)
    table = torch.zeros(states, 1 + len(PLANES), layout.rows, layout.cols)
    table[torch.arange(states), 0, layout.cell[:, 0], layout.cell[:, 1]] = 1
    table[:, 1:] = torch.stack([layout.look == LOOKS.index(look) for look in PLANES], 1)[layout.mode]
    return table


OBSERVATIONS: dict[str, Callable[[int, Layout | None], Shaped[Tensor, "S ..."]]] = {
    "index": index,
    "one-hot": one_hot,
    "coordinates": coordinates,
    "planes": planes,
}


def table(kind: str, states: int, layout: Layout | None) -> Shaped[Tensor, "S ..."]:
    """The observation table of a world with `states` states.

    Raises:
        ObservationError: for an unknown kind, a kind that needs a map where there is none, a table over 4 GiB.
    """
    if kind not in OBSERVATIONS:
        near = difflib.get_close_matches(kind, OBSERVATIONS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ObservationError(f"observation {kind!r} is unknown, expected one of {', '.join(OBSERVATIONS)}{hint}")
    return OBSERVATIONS[kind](states, layout)


def _mapped(kind: str, layout: Layout | None) -> Layout:
    if layout is None:
        raise ObservationError(f"observation {kind!r} needs a map and this world has none, expected index or one-hot")
    return layout


def _check_size(kind: str, states: int, numbers: int) -> None:
    if states * numbers > LIMIT:
        raise ObservationError(
            f"observation {kind!r} of {states} states would hold {states * numbers:.1e} numbers, "
            f"expected at most {LIMIT:.1e}: use coordinates or index"
        )
