"""The last n steps of every world that wait to be learnt about: what all n-step methods keep.

    G_(t:t+n) = R_(t+1) + gamma R_(t+2) + ... + gamma^(n-1) R_(t+n)  +  gamma^n v(S_(t+n))        (eq. 7.1)
              =                    reward_t                          +  discount_t v(S_(t+n))

A step that waits takes in each reward as it comes, so an n-step error is a one-step error (`rl.td`) of its summed
reward and its product of discounts. The product is 0 once the world ended: what stands after it never counts.

Source: Sutton & Barto 2018, ch. 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from rl import state


class Oldest(NamedTuple):
    """A step of each world."""

    entry: Int64[Tensor, "R W"]
    """What is to be corrected."""
    reward: Float64[Tensor, "R W"]
    """Summed since then, discounted."""
    discount: Float64[Tensor, "R W"]
    """Multiplied since then."""
    share: Float64[Tensor, "R W"]
    """How far its error may move it (see `rl.tabular.table.Table.visit`)."""


class Waiting:
    """Up to n steps of each world, a ring in which all worlds write the same slot.

    Args:
        n: how many steps may wait.
        device: where they lie.

    Raises:
        ValueError: for n below 1.
    """

    STATE = ("entry", "reward", "discount", "share", "count", "turn")

    def __init__(self, n: int, device: torch.device | str = "cpu") -> None:
        if n < 1:
            raise ValueError(f"n-step learning with n = {n}, expected 1 or more")
        self.n = n
        self.entry = torch.zeros(0, dtype=torch.int64, device=device)  # [R, W, n], what to correct
        self.reward = torch.zeros(0, dtype=torch.float64, device=device)  # [R, W, n], summed since then
        self.discount = torch.zeros(0, dtype=torch.float64, device=device)  # [R, W, n], multiplied since then
        self.share = torch.zeros(0, dtype=torch.float64, device=device)  # [R, W, n], step sizes
        self.count = torch.zeros(0, dtype=torch.int64, device=device)  # [R, W], steps that wait
        self.turn = 0

    def open(self, replicas: int, worlds: int) -> None:
        """Make room for R W worlds, once."""
        if not self.count.numel():
            self.entry, self.reward, self.discount, self.share = (
                kept.new_zeros(replicas, worlds, self.n)
                for kept in (self.entry, self.reward, self.discount, self.share)
            )
            self.count = self.count.new_zeros(replicas, worlds)

    def add(
        self,
        entry: Int64[Tensor, "R W"],
        reward: Float64[Tensor, "R W"],
        discount: Float64[Tensor, "R W"],
        share: Float64[Tensor, "R W"],
    ) -> None:
        """A step of every world; no world may be `full`."""
        self.reward += self.discount * reward.unsqueeze(-1)
        self.discount *= discount.unsqueeze(-1)
        slot = self.turn % self.n
        self.entry[..., slot], self.reward[..., slot], self.discount[..., slot] = entry, reward, discount
        self.share[..., slot] = share
        self.count += 1
        self.turn += 1

    def full(self) -> Bool[Tensor, "R W"]:
        """Where n steps wait."""
        return self.count == self.n

    def due(self, over: Bool[Tensor, "R W"]) -> Iterator[Bool[Tensor, "R W"]]:
        """Where a step waits in a world that is over, again and again until none does; the caller drops them."""
        # Asking how many wait is free on the CPU; elsewhere it would make the host wait for the device.
        for _ in range(int((self.count * over).max()) if over.device.type == "cpu" else self.n):
            yield over & (self.count > 0)

    def oldest(self) -> Oldest:
        """The step of each world that waited longest; anything where none waits."""
        slot = ((self.turn - self.count) % self.n).unsqueeze(-1)
        kept = (self.entry, self.reward, self.discount, self.share)
        entry, reward, discount, share = (column.gather(-1, slot)[..., 0] for column in kept)
        return Oldest(entry, reward, discount, share)

    def drop(self, where: Bool[Tensor, "R W"]) -> None:
        """The oldest waits no more."""
        self.count -= where.long()

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, self.STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, self.STATE, saved)


def tally(error: Float64[Tensor, "R W"], when: Bool[Tensor, "R W"]) -> Float64[Tensor, "2 R"]:
    """Absolute error and number of what was learnt about, summed over the worlds."""
    return torch.stack([(error * when).abs().sum(1), when.sum(1).double()])


def mean(tallies: Float64[Tensor, "2 R"]) -> Float64[Tensor, "R"]:
    """The mean absolute error; 0 where nothing was learnt about."""
    return tallies[0] / tallies[1].clamp(min=1)
