"""Episodes as Monte Carlo methods want them: whole. The running one of each world is kept until it ends.

    R replicas, W worlds of each, M episodes that ended in one step, T steps of the longest of them (time last)

A world may cut an episode by its time limit L. Nothing is bootstrapped here, so the return of step t of a cut episode
is that of what was seen, the L - t steps up to the limit: in the mean the value within L - t steps, which differs from
the endless one by at most gamma^(L - t) max|r| / (1 - gamma). So only the first `L - tail` steps of an episode teach,
whether it is cut or not (to choose by how it ends would favour those that end), and no return is off in the mean by
more than gamma^tail max|r| / (1 - gamma).

Source: Sutton & Barto 2018, sec. 5.1 and 5.3 (first and every visit); Zhao 2025, sec. 5.2.3 and 5.3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor

from rl.returns import discounted_sums
from rl.tabular.table import Table

CUT = 0.01  # share of a value that a return may lack because of the time limit


def tail_of(limit: int, gamma: float) -> int:
    """Steps before the limit that teach nothing unless told otherwise: gamma^tail <= 1%, but half of all at most."""
    enough = limit if gamma == 1 else 0 if gamma == 0 else math.ceil(math.log(CUT) / math.log(gamma))
    return min(limit // 2, enough)


@dataclass(frozen=True)
class Ended:
    """M episodes, padded to T steps."""

    replica: Int64[Tensor, "M"]
    there: Bool[Tensor, "M T"]
    """The step belongs to the episode; where not, the columns hold anything finite."""
    last: Bool[Tensor, "M T"]
    """It is the last one."""
    teaches: Bool[Tensor, "M T"]
    """It belongs to the episode, and is far enough from the time limit."""
    columns: dict[str, Shaped[Tensor, "M T"]]
    """What was added, by name."""

    def returns(self, gamma: float) -> Float64[Tensor, "M T"]:
        """G_t = r_t + gamma G_(t+1) up to the last step, from the column `reward`; whatever ended it, 0 follows."""
        return discounted_sums(self.columns["reward"] * self.there, gamma)


class Episodes:
    """The running episode of each of R W worlds; W is that of the first step.

    Args:
        replicas: R.
        limit: L, steps after which the world ends or cuts an episode.
        tail: steps before the limit that teach nothing.
        device: where they lie.

    Raises:
        ValueError: for a limit below 1, or a tail that leaves nothing to learn from.
    """

    def __init__(self, replicas: int, limit: int, tail: int, device: torch.device | str = "cpu") -> None:
        if limit < 1 or not 0 <= tail < limit:
            raise ValueError(f"episodes of {limit} steps with a tail of {tail}, expected 0 <= tail < steps")
        self.replicas, self.limit, self.tail = replicas, limit, tail
        self.device = torch.device(device)
        self.length = torch.zeros(replicas, 0, dtype=torch.int64, device=device)  # [R, W], steps so far
        self.columns: dict[str, Tensor] = {}  # each [R, W, L]

    def begin(self, worlds: int) -> Bool[Tensor, "R W"]:
        """Which worlds are at the beginning of an episode; before the first step, all."""
        if self.length.numel() == 0:
            return torch.ones(self.replicas, worlds, dtype=torch.bool, device=self.device)
        return self.length == 0

    def add(self, last: Bool[Tensor, "R W"], **columns: Shaped[Tensor, "R W"]) -> Ended | None:
        """Append one step of each world; give out the episodes that it ended, if any, and forget them.

        Raises:
            ValueError: for a step beyond the limit (on the CPU; elsewhere the check would wait for the device).
        """
        if not self.columns:
            self.length = torch.zeros_like(last, dtype=torch.int64)
            self.columns = {name: one.new_zeros(*one.shape, self.limit) for name, one in columns.items()}
        if self.device.type == "cpu" and bool((self.length >= self.limit).any()):
            raise ValueError(
                f"an episode goes on after {self.limit} steps, expected a world that ends or cuts it there"
            )
        for name, one in columns.items():
            self.columns[name].scatter_(2, self.length[..., None], one[..., None])
        self.length = self.length + 1
        which = last.nonzero()  # [M, 2]; the one place where the host waits for another device
        if len(which) == 0:
            return None
        ended = self._ended(which[:, 0], which[:, 1])
        self.length = self.length * ~last
        return ended

    def _ended(self, replica: Int64[Tensor, "M"], world: Int64[Tensor, "M"]) -> Ended:
        length = self.length[replica, world][:, None]  # [M, 1]
        t = torch.arange(int(length.max()), device=self.device)
        there = t < length
        return Ended(
            replica=replica,
            there=there,
            last=t == length - 1,
            teaches=there & (t < self.limit - self.tail),
            columns={name: one[replica, world, : len(t)] for name, one in self.columns.items()},
        )

    def state_dict(self) -> dict[str, Any]:
        return {"length": self.length.clone(), **{name: one.clone() for name, one in self.columns.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        held = {name: one.to(self.device, copy=True) for name, one in state.items()}
        self.length, self.columns = held.pop("length"), held


Visits = Callable[[Int64[Tensor, "M T"]], Bool[Tensor, "M T"]]


def first_visits(entry: Int64[Tensor, "M T"]) -> Bool[Tensor, "M T"]:
    """The steps whose entry, a state or a pair, did not occur before in the episode."""
    ordered, step = entry.sort(dim=-1, stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.zeros_like(new).scatter(-1, step, new)


def every_visit(entry: Int64[Tensor, "M T"]) -> Bool[Tensor, "M T"]:
    """All steps."""
    return torch.ones_like(entry, dtype=torch.bool)


class Means:
    """Makes the entries of a table weighted means of all targets that ever came, however many come at once.

        C <- C + W,   V <- V + (W / C) (G - V)        weights 1: the plain mean

    Unlike `Table.move`, which corrects an entry once for all that meet in it: a mean has to count each of them.

    Source: Sutton & Barto 2018, eq. 5.8.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.weight = torch.zeros_like(table.value)  # C

    def add(
        self,
        replica: Int64[Tensor, "m"],
        entry: Int64[Tensor, "m"],
        target: Float64[Tensor, "m"],
        weight: Float64[Tensor, "m"],
    ) -> Float64[Tensor, "m"]:
        """Take in m targets for entries, s or s A + a, of replicas. Returns their errors, target less entry before."""
        value, total, count = (x.view(-1) for x in (self.table.value, self.weight, self.table.n))
        at = replica * (len(value) // len(self.table.value)) + entry
        error = target - value[at]
        total.index_add_(0, at, weight)
        count.index_add_(0, at, torch.ones_like(at))
        value.index_add_(0, at, weight / total[at].clamp(min=torch.finfo(total.dtype).tiny) * error)  # 0 / 0 is 0 here
        return error

    def state_dict(self) -> dict[str, Any]:
        """The weights; the table saves itself."""
        return {"weight": self.weight.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.weight.copy_(state["weight"])


def mean_size(
    error: Float64[Tensor, "m"], replica: Int64[Tensor, "m"], before: Float64[Tensor, "R"]
) -> Float64[Tensor, "R"]:
    """The mean size of what each replica has, and `before` for those that have nothing."""
    count = torch.zeros_like(before).index_add_(0, replica, torch.ones_like(error))
    total = torch.zeros_like(before).index_add_(0, replica, error.abs())
    return torch.where(count > 0, total / count.clamp(min=1), before)
