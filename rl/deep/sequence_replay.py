"""Replay of sequences: each world's looks in time order, and what was remembered at every `stride`-th of them.

    looks [R, W, C, ...]      a ring for each world        memory [R, W, C / stride, *m]

A look is an observation with what was done there and what came of it. An episode cut by a time limit leaves one look
more, its true successor, from which nothing is learnt: so the look after any step is always what the step led to, and
a target never mistakes the first look of the next episode for it. Sequences begin at multiples of the stride, where
what the agent remembered when it acted is stored; they may hold the ends of episodes, and `begins` says where.

Source: Kapturowski et al., "Recurrent experience replay in distributed reinforcement learning" (R2D2), ICLR 2019,
sec. 2.3 and 3.1: sequences of a fixed length that overlap, with the recurrent state of their first step.
Departures: theirs end with the episode, and are drawn by priority.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64, Shaped
from torch import Tensor

from lab import streams
from rl.deep.replay import below
from rl.types import Transition

FIELDS = ("obs", "action", "reward", "discount", "last", "begins", "counts")


@dataclass(frozen=True)
class Sequences:
    """B pieces of history of each replica, T looks each."""

    obs: Shaped[Tensor, "R B T *shape"]
    action: Int64[Tensor, "R B T"]
    reward: Float32[Tensor, "R B T"]
    discount: Float32[Tensor, "R B T"]
    """0 where the world terminated, else 1."""
    last: Bool[Tensor, "R B T"]
    """The episode ended, either way."""
    begins: Bool[Tensor, "R B T"]
    """The first look of an episode."""
    counts: Bool[Tensor, "R B T"]
    """A step was taken here; False for what a cut episode led to."""
    memory: Float32[Tensor, "R B *memory"]
    """What the agent remembered when it saw the first look."""


class SequenceReplay:
    """A ring of looks for each world, allocated in the shapes of the first step that comes.

    Args:
        capacity: looks kept for each replica; each of its W worlds has C = capacity / W, down to a whole stride.
        length: T, looks in a sequence.
        stride: looks between the starts of two sequences.
        keys: one for each replica; its samples depend on no other.

    Raises:
        ValueError: as `room` says of a single world.
    """

    def __init__(self, capacity: int, length: int, stride: int, keys: Int64[Tensor, "R"]) -> None:
        room(capacity, 1, length, stride)
        self.capacity, self.length, self.stride, self.key = capacity, length, stride, keys
        self.turns = 0  # steps of every world seen
        self.storage: dict[str, Tensor] = {}

    @property
    def ready(self) -> bool:
        """Whether every world holds a sequence."""
        return self.turns >= self.length

    def add(self, t: Transition) -> None:
        """Append a step of every world, and where it was cut, what it led to.

        Raises:
            ValueError: on the first, as `room` says.
        """
        if not self.storage:
            self._allocate(t)
        s, at, no = self.storage, self.storage["added"], torch.zeros_like(t.last)
        cut = t.last & (t.discount > 0)
        # The look after: of a cut episode it stays; of any other the next step is written over it.
        self._write(at + 1, t.next_obs, 0 * t.action, 0 * t.reward, 0 * t.discount, ~no, no, no)
        self._remember(at + 1, torch.zeros_like(t.memory))
        self._write(at, t.obs, t.action, t.reward, t.discount, t.last, s["fresh"], ~no)
        self._remember(at, t.memory)
        s["added"] = at + 1 + cut.long()
        s["fresh"] = t.last.clone()
        self.turns += 1

    def sample(self, size: int, draw: int) -> Sequences:
        """`size` sequences of each replica, each from a world drawn evenly and a start drawn evenly from those it has.

        It is draw number `draw` of each replica's stream.

        Raises:
            ValueError: when some world holds no sequence yet.
        """
        if not self.ready:
            raise ValueError(f"{self.turns} steps are remembered, expected at least {self.length} before a sample")
        R, W, C = self.storage["action"].shape
        pair = 2 * (draw * size + torch.arange(size, device=self.key.device))
        world = below(W, streams.bits(self.key[:, None], pair))  # [R, B]
        added = self.storage["added"].gather(1, world)
        first = (added + 1 - C).clamp(min=0).add(self.stride - 1) // self.stride  # in strides; slot `added` is in use
        starts = (added - self.length) // self.stride + 1 - first
        chance = streams.uniform(self.key[:, None], pair + 1).double()
        start = (first + (chance * starts).long()) * self.stride  # [R, B]
        ring = torch.arange(R, device=world.device)[:, None] * W + world  # [R, B]
        look = ring[..., None] * C + (start[..., None] + torch.arange(self.length, device=world.device)) % C
        spot = ring * (C // self.stride + 1) + start // self.stride % (C // self.stride)
        columns = {name: self.storage[name].flatten(0, 2)[look] for name in FIELDS}
        return Sequences(**columns, memory=self.storage["memory"].flatten(0, 2)[spot])

    def _write(self, at: Int64[Tensor, "R W"], *columns: Tensor) -> None:
        row = torch.arange(at.numel(), device=at.device)
        for name, column in zip(FIELDS, columns, strict=True):
            ring = self.storage[name]
            ring.flatten(0, 1)[row, at.flatten() % ring.shape[2]] = column.flatten(0, 1)

    def _remember(self, at: Int64[Tensor, "R W"], memory: Float32[Tensor, "R W *memory"]) -> None:
        """Only at multiples of the stride; what is written elsewhere goes to a slot that nobody reads."""
        ring = self.storage["memory"]
        slots = ring.shape[2] - 1
        slot = torch.where(at % self.stride == 0, at // self.stride % slots, slots).flatten()
        ring.flatten(0, 1)[torch.arange(at.numel(), device=at.device), slot] = memory.flatten(0, 1)

    def _allocate(self, t: Transition) -> None:
        R, W = t.action.shape
        C = room(self.capacity, W, self.length, self.stride)
        like = {"obs": t.obs, "action": t.action, "reward": t.reward, "discount": t.discount}
        like |= {"last": t.last, "begins": t.last, "counts": t.last}
        self.storage = {name: one.new_zeros(R, W, C, *one.shape[2:]) for name, one in like.items()}
        self.storage["memory"] = t.memory.new_zeros(R, W, C // self.stride + 1, *t.memory.shape[2:])
        self.storage["added"] = torch.zeros_like(t.action)  # looks ever added to each world
        self.storage["fresh"] = torch.ones_like(t.last)  # whether the next look begins an episode

    def state_dict(self) -> dict[str, Any]:
        return {"turns": self.turns, **{name: stored.clone() for name, stored in self.storage.items()}}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.turns = saved["turns"]
        device = self.key.device
        self.storage = {name: one.to(device, copy=True) for name, one in saved.items() if name != "turns"}


def room(capacity: int, worlds: int, length: int, stride: int) -> int:
    """C, the looks kept of each world: a share of the capacity, down to a whole stride.

    Raises:
        ValueError: for fewer than a sequence and a stride, or a length or stride below 1.
    """
    if length < 1 or stride < 1:
        raise ValueError(f"sequences of {length} every {stride} looks, expected 1 or more of both")
    share, least = capacity // worlds // stride * stride, length + stride
    if least > share:
        raise ValueError(
            f"the capacity is {capacity}, {capacity // worlds} for each of {worlds} worlds; expected at least "
            f"{-(-least // stride) * stride} for each: a sequence of {length} and a stride"
        )
    return share
