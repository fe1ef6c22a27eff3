"""A world that is a table, with all that belongs to it: its map, its discount, where it comes from, its optimum."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from envs import observation
from envs.layout import Layout
from envs.mdp import TabularMDP
from envs.observation import ObservationError
from envs.simulator import Simulator


@dataclass(frozen=True)
class Optimum:
    """What is known of the best policy, to be checked against."""

    value: float
    """Expected discounted return of an optimal policy, over the start distribution."""
    discount: float
    tolerance: float
    """Half a unit of the last digit that the source prints."""
    source: str
    values: tuple[tuple[float, ...], ...] = ()
    """V* of each cell, row by row, where the source prints them."""


@dataclass(frozen=True, eq=False)
class World:
    """A finite world: named, exact, and ready to be simulated."""

    name: str
    source: str
    mdp: TabularMDP
    discount: float
    """The discount that the source uses; an algorithm may choose its own."""
    time_limit: int | None = None
    """Steps after which an episode is truncated. It is no part of the dynamics."""
    layout: Layout | None = None
    action_names: tuple[str, ...] = ()
    """One name for each action; those in `envs.gridworld.MOVES` are drawn as arrows."""
    optimum: Optimum | None = None
    parts: tuple[World, ...] = ()
    """Of a mixture, the worlds that follow each other in its tables (see `envs.mixture`); else none."""
    _observed: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def actions(self) -> int:
        """A, the number of actions."""
        return self.mdp.actions

    @property
    def blocks(self) -> int:
        """M: world n of a simulator lives for ever in the n % M-th of M equal blocks of states."""
        return max(1, len(self.parts))

    def observe(self, kind: str) -> Shaped[Tensor, "S ..."]:
        """What each state looks like; `kind` is one of `envs.observation.OBSERVATIONS`. Raises ObservationError."""
        if kind not in self._observed:
            look = observation.table(kind, self.mdp.states, self.layout) if not self.parts else self._side_by_side(kind)
            self._observed[kind] = look
        return self._observed[kind]

    def simulate(
        self, keys: Int64[Tensor, "N"], *, observation: str = "index", device: torch.device | str = "cpu"
    ) -> Simulator:
        """One world for each key, stepped together. Raises ObservationError for an unknown observation."""
        table = self.observe(observation)
        return Simulator(
            self.mdp, keys, observation=table, time_limit=self.time_limit, blocks=self.blocks, device=device
        )

    def _side_by_side(self, kind: str) -> Shaped[Tensor, "S ..."]:
        """The tables of all parts, one after another; states are numbered through."""
        if kind == "one-hot":
            return observation.table(kind, self.mdp.states, None)[self.observe("index")]
        tables = [part.observe(kind) for part in self.parts]
        if kind in ("index", "state"):
            return torch.cat([table + m * len(table) for m, table in enumerate(tables)])
        for m, table in enumerate(tables):
            if table.shape != tables[0].shape:
                shapes = f"{list(tables[0].shape[1:])} in the first and {list(table.shape[1:])} in world {m}"
                raise ObservationError(f"observation {kind!r} of the worlds of {self.name!r} is {shapes}, expected one")
        return torch.cat(tables)
