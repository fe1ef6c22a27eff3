"""Experience replay: the last `capacity` transitions of each replica, and uniform draws from them.

    storage [R, capacity, ...], a ring that every replica fills at the same pace

What is held of a transition may look several steps ahead: `reward` and `discount` are then those of `rl.deep.n_step`,
and `discount` carries gamma.

Source: Lin, "Self-improving reactive agents based on reinforcement learning, planning and teaching", Machine Learning
1992; Mnih et al. 2015, Methods, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float32, Int64, Shaped
from torch import Tensor

from lab import streams
from rl.types import Transition

FIELDS = ("obs", "action", "reward", "next_obs", "discount")


@dataclass(frozen=True)
class Batch:
    """B past transitions of each replica."""

    obs: Shaped[Tensor, "R B *shape"]
    action: Int64[Tensor, "R B"]
    reward: Float32[Tensor, "R B"]
    next_obs: Shaped[Tensor, "R B *shape"]
    discount: Float32[Tensor, "R B"]
    """What the value of next_obs counts for: gamma (gamma^n), or 0 where the world ended."""
    weight: Float32[Tensor, "R B"]
    """What its loss counts for: 1, but where the draw was not uniform."""
    place: Int64[Tensor, "R B"]
    """Where it lies in the ring."""


@runtime_checkable
class Memories(Protocol):
    """What a learner asks of its past."""

    capacity: int
    asks: bool
    """Whether `learned` makes any use of what it is told; where it does not, nobody need work it out."""

    def __len__(self) -> int: ...

    def add(self, transition: Transition) -> None:
        """Append one step of each world."""
        ...

    def sample(self, batches: int, size: int, draw: int) -> Iterable[Batch]:
        """`batches` batches, to be asked for one after the other: each is drawn when it is asked for, or before."""
        ...

    def learned(self, batch: Batch, surprise: Float32[Tensor, "R B"]) -> None:
        """How much there was to learn from each transition of a batch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Replay:
    """A ring of transitions for each replica, allocated in the dtypes of the first that comes.

    Args:
        capacity: transitions kept for each replica.
        keys: one for each replica; its samples depend on no other.

    Raises:
        ValueError: for a capacity below 1, or one that the worlds of a replica overrun in a single step.
    """

    asks = False  # every transition is drawn alike

    def __init__(self, capacity: int, keys: Int64[Tensor, "R"]) -> None:
        if capacity < 1:
            raise ValueError(f"the replay capacity is {capacity}, expected at least 1")
        self.capacity, self.key = capacity, keys
        self.added = 0  # transitions ever added, for each replica
        self.storage: dict[str, Tensor] = {}
        self._row = capacity * torch.arange(len(keys), device=keys.device)[:, None]  # where each replica begins

    def __len__(self) -> int:
        """Transitions held, for each replica."""
        return min(self.added, self.capacity)

    def add(self, transition: Transition) -> None:
        """Append one step of each world."""
        places = self.next_places(transition.action.shape[1])
        if not self.storage:
            self._allocate({name: getattr(transition, name) for name in FIELDS})
        for name, stored in self.storage.items():
            stored.index_copy_(1, places, getattr(transition, name))
        self.added += len(places)

    def next_places(self, worlds: int) -> Int64[Tensor, "W"]:
        """Where the next step of each world will lie."""
        if self.capacity < worlds:
            raise ValueError(f"the replay capacity is {self.capacity}, expected at least {worlds}, a replica's worlds")
        return (self.added + torch.arange(worlds, device=self.key.device)) % self.capacity

    def sample(self, batches: int, size: int, draw: int) -> list[Batch]:
        """`batches` independent batches of `size` transitions, uniform with replacement.

        They are the draws `draw`, `draw + 1`, ... of each replica's stream: ask for later ones with a later `draw`.

        Raises:
            ValueError: when nothing was added yet.
        """
        if not self.added:
            raise ValueError("the replay is empty, expected at least one transition before a sample")
        index = (draw * size) + torch.arange(batches * size, device=self.key.device)
        place = below(len(self), streams.bits(self.key[:, None], index))  # [R, batches size]
        place = place.view(-1, batches, size).transpose(0, 1)  # [batches, R, size]
        weight = torch.ones((), device=place.device).expand(place.shape[1:])
        columns = {name: self._gather(stored, place) for name, stored in self.storage.items()}
        return [
            Batch(**{name: column[b] for name, column in columns.items()}, weight=weight, place=place[b])
            for b in range(batches)
        ]

    def at(self, place: Int64[Tensor, "R B"], weight: Float32[Tensor, "R B"]) -> Batch:
        """The transitions that lie there, as a batch in which they count for `weight`."""
        columns = {name: self._gather(stored, place[None])[0] for name, stored in self.storage.items()}
        return Batch(**columns, weight=weight, place=place)

    def learned(self, batch: Batch, surprise: Float32[Tensor, "R B"]) -> None:
        """Nothing."""

    def _gather(self, stored: Tensor, place: Int64[Tensor, "G R B"]) -> Tensor:
        row = (self._row + place).reshape(-1)
        return stored.flatten(0, 1).index_select(0, row).view(*place.shape, *stored.shape[2:])

    def _allocate(self, like: dict[str, Tensor]) -> None:
        self.storage = {
            name: torch.empty(len(self.key), self.capacity, *one.shape[2:], dtype=one.dtype, device=self.key.device)
            for name, one in like.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """What is held, and the count; a ring that is not yet full saves its filled part only."""
        return {"added": self.added, **{name: stored[:, : len(self)].clone() for name, stored in self.storage.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.added = state["added"]
        self.storage = {}
        filled = {name: state[name] for name in FIELDS if name in state}
        if filled:
            self._allocate(filled)
        for name, stored in self.storage.items():
            stored[:, : len(self)] = filled[name]


def below(bound: int, bits: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    """Uniform integers in [0, bound), from the top 31 bits by multiplication (Lemire 2019): bias below bound / 2^31."""
    return ((bits >> 33) & 0x7FFFFFFF) * bound >> 31
