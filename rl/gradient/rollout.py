"""What every world went through since it was last learnt from: all that a policy gradient remembers.

    storage [R, W, T, ...], time third;   length [R, W]   steps held of each world

A stretch of T steps of all worlds: Mnih et al. 2016, algorithm S3; Schulman et al. 2017, sec. 5. Or whole episodes,
each of its own length: Williams 1992, sec. 4.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from lab import streams
from rl.types import Transition

FIELDS = ("obs", "action", "reward", "next_obs", "discount", "last")


class Rollout:
    """Up to T steps of each world, allocated in the dtypes of the first that comes.

    Args:
        steps: T.
        device: where the steps come from, and a saved state goes to.

    Raises:
        ValueError: for T below 1.
    """

    def __init__(self, steps: int, device: torch.device | str = "cpu") -> None:
        if steps < 1:
            raise ValueError(f"a rollout of {steps} steps, expected at least 1")
        self.steps, self.device = steps, torch.device(device)
        self.storage: dict[str, Tensor] = {}
        self.length = torch.zeros(0, 0, dtype=torch.int64, device=self.device)

    @property
    def full(self) -> Bool[Tensor, "R W"]:
        """Worlds that hold T steps and must be forgotten before they can go on."""
        return self.length == self.steps

    def __getitem__(self, name: str) -> Shaped[Tensor, "R W T *shape"]:
        """A field of `rl.types.Transition`; what stands beyond a world's length is of no meaning."""
        return self.storage[name]

    def final(self, name: str) -> Shaped[Tensor, "R W *shape"]:
        """A field of each world's latest step."""
        return self.storage[name][self._row, self._column, (self.length - 1).clamp(min=0)]

    def add(self, transition: Transition) -> None:
        """Append one step of every world."""
        if not self.storage:
            self._allocate({name: getattr(transition, name).unsqueeze(2) for name in FIELDS})
        at = (self._row, self._column, self.length)
        for name, stored in self.storage.items():
            stored[at] = getattr(transition, name)
        self.length += 1

    def forget(self, over: Bool[Tensor, "R W"]) -> None:
        """Begin anew in the worlds of `over`."""
        self.length.masked_fill_(over, 0)

    def _allocate(self, like: dict[str, Tensor]) -> None:
        """Room for T steps, of the kinds of `like`: [R, W, any number of steps, ...]."""
        R, W = like["action"].shape[:2]
        device = self.device
        self.storage = {
            name: torch.zeros(R, W, self.steps, *some.shape[3:], dtype=some.dtype, device=device)
            for name, some in like.items()
        }
        self.length = torch.zeros(R, W, dtype=torch.int64, device=device)
        self._row = torch.arange(R, device=device)[:, None].expand(R, W)
        self._column = torch.arange(W, device=device).expand(R, W)

    def state_dict(self) -> dict[str, Any]:
        """What is held; nothing before the first step."""
        if not self.storage:
            return {}
        longest = int(self.length.max())
        beyond = torch.arange(longest, device=self.length.device) >= self.length[..., None]  # [R, W, longest]
        saved: dict[str, Any] = {"length": self.length.clone()}
        for name, stored in self.storage.items():
            where = beyond.view(*beyond.shape, *[1] * (stored.ndim - 3))
            saved[name] = stored[:, :, :longest].masked_fill(where, 0)
        return saved

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.storage = {}
        if not state:
            self.length = self.length[:0, :0]
            return
        self._allocate({name: state[name] for name in FIELDS})
        self.length.copy_(state["length"])
        for name, stored in self.storage.items():
            stored[:, :, : state[name].shape[2]] = state[name]


def shuffled(keys: Int64[Tensor, "R"], epoch: int, count: int) -> Int64[Tensor, "R N"]:
    """The order in which each replica learns from `count` steps: the `epoch`-th of its own key's permutations."""
    index = epoch * count + torch.arange(count, device=keys.device)
    return streams.bits(keys[:, None], index).argsort(1)


def parts(order: Int64[Tensor, "R N"], minibatches: int) -> tuple[Int64[Tensor, "R _"], ...]:
    """The order cut into minibatches, whose sizes differ by 1 at most.

    Raises:
        ValueError: for more minibatches than steps: some would be empty.
    """
    if minibatches > order.shape[1]:
        raise ValueError(f"{minibatches} minibatches of {order.shape[1]} steps, expected one step in each or more")
    return order.tensor_split(minibatches, 1)
