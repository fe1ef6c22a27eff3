"""A world that is a table, with all that belongs to it: its map, its discount, where it comes from, its optimum."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from envs import observation
from envs.layout import Layout
from envs.mdp import TabularMDP
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
    _observed: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def actions(self) -> int:
        """A, the number of actions."""
        return self.mdp.actions

    def observe(self, kind: str) -> Shaped[Tensor, "S ..."]:
        """What each state looks like; `kind` is one of `envs.observation.OBSERVATIONS`. Raises ObservationError."""
        if kind not in self._observed:
            self._observed[kind] = observation.table(kind, self.mdp.states, self.layout)
        return self._observed[kind]

    def simulate(
        self, keys: Int64[Tensor, "N"], *, observation: str = "index", device: torch.device | str = "cpu"
    ) -> Simulator:
        """One world for each key, stepped together. Raises ObservationError for an unknown observation."""
        table = self.observe(observation)
        return Simulator(self.mdp, keys, observation=table, time_limit=self.time_limit, device=device)
