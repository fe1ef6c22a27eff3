"""What an agent sees: a table [S, *shape], one row for each state, so that looking is a gather.

| kind        | row of the table                                                                              |
|-------------|-----------------------------------------------------------------------------------------------|
| index       | int64 [], the state's number: for tables of values                                            |
| state       | int64 [], the same, also where the world hides it: what an agent that knows all would see     |
| one-hot     | float32 [S]: for networks on small worlds                                                     |
| coordinates | float32 [2 + V], row and column, each from -1 (first) to 1 (last), and the V badges           |
| planes      | float32 [C, H, W], 0 or 1: the agent, a plane for each look of the map, one for each badge    |
| window-K    | float32 [C - 1, K, K], K odd: the planes but the agent's, cut out around it; walls beyond     |
| rgb         | uint8 [3, H', W'], the picture of `envs.pixels.mosaic`, at least 36 pixels high and wide             |

The looks are those of `PLANES`, and after them any other but floor and start that occurs in the world. Badges are what
is seen besides the map, keys in hand or a cue (see `envs.layout`). Where a world hides something, states that look
alike have the same row, that of the first of them, in every kind but `state`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8
from torch import Tensor

from envs.layout import LOOKS, Layout
from envs.pixels import mosaic

PLANES = ("wall", "goal", "forbidden", "hole")
LIMIT = 2**32  # bytes of a table: 4 GiB
RGB_SIDE = 36  # pixels that a convolutional network of Atari's kind needs, and stable-baselines3 asks for
RGB_CELL = 8  # pixels of a cell in which its tile can be told from others


class ObservationError(ValueError):
    """A kind of observation that does not exist, or that this world does not have."""


def index(states: int, layout: Layout | None) -> Int64[Tensor, "S"]:
    """The state's own number."""
    return torch.arange(states)


def one_hot(states: int, layout: Layout | None) -> Float32[Tensor, "S S"]:
    """1 at the state's number, 0 elsewhere."""
    _check_size("one-hot", states, 4 * states)
    return torch.eye(states)


def coordinates(states: int, layout: Layout | None) -> Float32[Tensor, "S n"]:
    """Row and column, each scaled to -1 ... 1 (0 where the map has a single one), and the badges."""
    layout = _mapped("coordinates", layout)
    last = torch.tensor([layout.rows - 1, layout.cols - 1])
    scaled = torch.where(last > 0, 2 * layout.cell / last.clamp(min=1) - 1, 0.0)
    return scaled if layout.badges is None else torch.cat([scaled, layout.badges], 1)


def planes(states: int, layout: Layout | None) -> Float32[Tensor, "S C H W"]:
    """The agent's cell, then the cells of each look, then the badges."""
    layout = _mapped("planes", layout)
    looks = _looks(layout)
    channels = 1 + looks.shape[1] + len(layout.badge_names)
    _check_size("planes", states, 4 * channels * layout.rows * layout.cols)
    table = torch.zeros(states, channels, layout.rows, layout.cols)
    table[torch.arange(states), 0, layout.cell[:, 0], layout.cell[:, 1]] = 1
    table[:, 1 : 1 + looks.shape[1]] = looks[layout.mode]
    _fill_badges(table, layout)
    return table


def window(states: int, layout: Layout | None, side: int) -> Float32[Tensor, "S C K K"]:
    """The looks of the K x K cells around the agent, then the badges.

    Raises:
        ObservationError: for an even side, or one that reaches beyond the map from everywhere.
    """
    kind = f"window-{side}"
    layout = _mapped(kind, layout)
    most = 2 * max(layout.rows, layout.cols) - 1
    if side % 2 == 0 or side > most:
        raise ObservationError(f"observation {kind!r} has a side of {side}, expected an odd number from 1 to {most}")
    looks, reach = _looks(layout), side // 2
    channels = looks.shape[1] + len(layout.badge_names)
    _check_size(kind, states, 4 * channels * side**2)
    seen = torch.nn.functional.pad(looks.float(), (reach,) * 4)  # [M, C', H + 2 reach, W + 2 reach]
    seen[:, 0] = 1 - torch.nn.functional.pad(1 - looks[:, 0].float(), (reach,) * 4)  # the wall goes on beyond the map
    seen = seen.transpose(0, 1).contiguous()  # [C', M, ...]
    rows, cols = seen.shape[2:]
    corner = (layout.mode * rows + layout.cell[:, 0]) * cols + layout.cell[:, 1]  # [S], the window's upper left
    table = torch.zeros(states, channels, side, side)
    for y in range(side):
        for x in range(side):
            table[:, : looks.shape[1], y, x] = seen.flatten(1)[:, corner + y * cols + x].T
    _fill_badges(table, layout)
    return table


def rgb(states: int, layout: Layout | None) -> UInt8[Tensor, "S 3 H W"]:
    """The picture, channels first."""
    layout = _mapped("rgb", layout)
    rows, cols = mosaic.height(layout), layout.cols
    pixels = max(RGB_CELL, -(-RGB_SIDE // min(rows, cols)))
    _check_size("rgb", states, 3 * rows * cols * pixels**2)
    return mosaic.paint_all(layout, pixels)


OBSERVATIONS: dict[str, Callable[[int, Layout | None], Shaped[Tensor, "S ..."]]] = {
    "index": index,
    "state": index,
    "one-hot": one_hot,
    "coordinates": coordinates,
    "planes": planes,
    "rgb": rgb,
}
KINDS = (*OBSERVATIONS, "window-K")


def table(kind: str, states: int, layout: Layout | None) -> Shaped[Tensor, "S ..."]:
    """The observation table of a world with `states` states.

    Raises:
        ObservationError: for an unknown kind, a kind that needs a map where there is none, a table over 4 GiB, a window
            of a side that is even or larger than all there is to see.
    """
    if side := re.fullmatch(r"window-(\d{1,9})", kind):
        seen: Shaped[Tensor, "S ..."] = window(states, layout, int(side[1]))
    elif kind in OBSERVATIONS:
        seen = OBSERVATIONS[kind](states, layout)
    else:
        near = difflib.get_close_matches(kind, [*KINDS, "window-5"], n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ObservationError(f"observation {kind!r} is unknown, expected one of {', '.join(KINDS)} with K odd{hint}")
    if layout is None or layout.alike is None or kind == "state":
        return seen
    return seen[layout.alike]


def bounds(kind: str) -> tuple[float, float]:
    """The least and the greatest number in any table of a kind but `index` and `state`."""
    return {"coordinates": (-1.0, 1.0), "rgb": (0.0, 255.0)}.get(kind, (0.0, 1.0))


def _looks(layout: Layout) -> Bool[Tensor, "M C rows cols"]:
    """Where each look is, in each mode: those of `PLANES`, then the others that occur, in the order of `LOOKS`."""
    occur = set(np.unique(layout.look.numpy()).tolist())
    others = [look for i, look in enumerate(LOOKS) if look not in (*PLANES, "floor", "start") and i in occur]
    return torch.stack([layout.look == LOOKS.index(look) for look in (*PLANES, *others)], 1)


def _fill_badges(table: Float32[Tensor, "S C H W"], layout: Layout) -> None:
    """The last planes: each badge's value, everywhere."""
    if layout.badges is not None:
        table[:, -len(layout.badge_names) :] = layout.badges[:, :, None, None]


def _mapped(kind: str, layout: Layout | None) -> Layout:
    if layout is None:
        raise ObservationError(
            f"observation {kind!r} needs a map and this world has none, expected index, state or one-hot"
        )
    return layout


def _check_size(kind: str, states: int, size: int) -> None:
    """Refuse a table of `size` bytes a state that would not fit."""
    if states * size > LIMIT:
        raise ObservationError(
            f"observation {kind!r} of {states} states would take {states * size / 2**30:.1f} GiB, "
            f"expected at most {LIMIT / 2**30:.0f}: use coordinates, index or a small window"
        )
