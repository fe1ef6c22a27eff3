"""A table of values that many worlds correct at once: what all tabular learners share.

    value [R, *shape], shape (S,) or (S, A), one table for each replica;  n [R, *shape]   visits of each entry

The n-th visit of an entry moves it by alpha / n^omega of its error. Worlds of a replica that are in one entry at one
moment are one visit, and each has an equal share in it: what they bring is averaged, whether it is known at once
(`move`) or at different turns (`visit`, and later `correct`). Omega in (1/2, 1] satisfies Robbins & Monro
(1951), with which TD methods converge with probability 1; polynomial rates (omega < 1) do so in a time polynomial in
1 / (1 - gamma), where omega = 1 needs an exponential one (Even-Dar & Mansour, JMLR 2003). Omega 0 is a constant step
size: right where nothing is left to chance, and what most experiments of the books use.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from rl import state

STATE = ("value", "n")


class Table:
    """R tables and their step sizes.

    Args:
        replicas: R.
        shape: (S,) or (S, A).
        alpha, omega: the step sizes; alpha may differ from replica to replica.
        initial: value of every entry before anything is learned. Above all that can be had it is optimism, which
            explores by itself (Sutton & Barto 2018, sec. 2.6).
        device: where it lies.
    """

    def __init__(
        self,
        replicas: int,
        shape: tuple[int, ...],
        *,
        alpha: float | Float64[Tensor, "R 1"],
        omega: float,
        initial: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.alpha, self.omega = alpha, omega
        self.value = torch.full((replicas, *shape), initial, dtype=torch.float64, device=device)
        self.n = torch.zeros(replicas, *shape, dtype=torch.int64, device=device)
        self.row = torch.arange(replicas, device=device)[:, None]
        # Looked up, for torch's power rounds by where a number stands in the tensor: among other replicas, otherwise.
        self._power = powers(256, omega).to(device)
        self._visits = 0  # no entry can have more

    def __getitem__(self, states: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W *A"]:
        """Each replica's own values of its own states."""
        return self.value[self.row, states]

    def move(
        self,
        entry: Int64[Tensor, "R W"],
        error: Float64[Tensor, "R W"],
        when: Bool[Tensor, "R W"] | None = None,
    ) -> None:
        """Visit an entry for each world, s or s A + a, and correct it by the mean error of those that meet in it.

        Where `when` is given, only these worlds are there. It must not depend on how a step came out, or outcomes would
        count by when they come and not by how often: for that there are `visit` and `correct`.
        """
        flat = self.value.view(len(self.value), -1)
        error, there = _mean_of_equals(error, entry, when)
        step = self._rate(self._count(entry, there))
        flat.scatter_(1, entry, flat.gather(1, entry) + step * error)

    def visit(self, entry: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W"]:
        """Visit an entry for each world, whose errors will be known later; how far each may then move it.

        That is the step size of this visit, divided by the number of a replica's worlds that share it.
        """
        return self._rate(self._count(entry, 1)) / meeting(entry)

    def correct(
        self,
        entry: Int64[Tensor, "R W"],
        error: Float64[Tensor, "R W"],
        when: Bool[Tensor, "R W"],
        share: Float64[Tensor, "R W"],
    ) -> None:
        """Correct what was visited before, in the worlds `when`, by `share` (of `visit`) of each error."""
        flat, moved = self.value.view(len(self.value), -1), error * when * share
        if entry.shape[1] > 1:
            moved = summed(_same(entry) * moved.unsqueeze(-1))
        flat.scatter_(1, entry, flat.gather(1, entry) + moved)  # worlds that meet write the same number

    def count(self, entry: Int64[Tensor, "R W"]) -> None:
        """Visit an entry for each world, without any correction yet."""
        self._count(entry, 1)

    def count_turns(self, turns: int) -> Float64[Tensor, "visits"]:
        """Count `turns` turns, and look up 1 / n^omega for every n they may lead to, for who counts visits himself."""
        self._visits += turns
        self._reach()
        return self._power

    def rates(self) -> Float64[Tensor, "R E"]:
        """The step size of each entry's latest visit, alpha / n^omega; alpha before the first."""
        return self._rate(self.n.view(len(self.n), -1))

    def _count(self, entry: Int64[Tensor, "R W"], there: Int64[Tensor, "R W"] | int) -> Int64[Tensor, "R W"]:
        count = self.n.view(len(self.n), -1)
        n = count.gather(1, entry) + there
        count.scatter_(1, entry, n)  # worlds that meet write the same number
        self._visits += 1
        return n

    def _rate(self, n: Int64[Tensor, "*b"]) -> Float64[Tensor, "*b"]:
        self._reach()
        return self.alpha * self._power[n]

    def _reach(self) -> None:
        if self._visits >= len(self._power):
            self._power = powers(2 * self._visits, self.omega).to(self._power.device)

    def at(self, states: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M *A"]:
        """Values of states [M], or of each replica's own [R, M]."""
        return self[states.expand(len(self.value), states.shape[-1])]

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, STATE, saved)
        self._visits = int(self.n.max())


def powers(size: int, omega: float) -> Float64[Tensor, "size"]:
    """1 / n^omega for n = 0 (1), 1, 2, ..., each rounded by itself."""
    if omega == 0:  # the same numbers, at once
        return torch.ones(size, dtype=torch.float64)
    return torch.tensor([1.0, *(n**-omega for n in range(1, size))], dtype=torch.float64)


def meeting(entry: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W"]:
    """How many of a replica's worlds are in the entry of each, itself among them."""
    if entry.shape[1] == 1:
        return torch.ones_like(entry, dtype=torch.float64)
    return (entry[:, :, None] == entry[:, None, :]).sum(-1).double()


def summed(x: Float64[Tensor, "R W E"]) -> Float64[Tensor, "R E"]:
    """The sum over worlds, in an order that depends on W alone: torch's own, and its products', depend on R, too."""
    while (W := x.shape[1]) > 1:
        half = x[:, : W // 2] + x[:, W // 2 : W // 2 * 2]
        x = torch.cat([half, x[:, W - 1 :]], 1) if W % 2 else half
    return x[:, 0]


def _same(entry: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W W"]:
    """1 where two worlds are in the same entry."""
    return (entry[:, :, None] == entry[:, None, :]).double()


def _mean_of_equals(
    error: Float64[Tensor, "R W"], entry: Int64[Tensor, "R W"], when: Bool[Tensor, "R W"] | None
) -> tuple[Float64[Tensor, "R W"], Int64[Tensor, "R W"]]:
    """The mean error of the worlds in the same entry, the same number in each of them, and 1 where there are any."""
    if error.shape[1] == 1:
        return (error, torch.ones_like(entry)) if when is None else (error * when, when.long())
    same = _same(entry)
    if when is None:
        return summed(same * error.unsqueeze(-1)) / same.sum(-1), torch.ones_like(entry)
    same *= when.unsqueeze(-1)  # [R, W, W], those that are there, in each column
    worlds = same.sum(1)  # whole numbers, exact in any order
    return summed(same * error.unsqueeze(-1)) / worlds.clamp(min=1), (worlds > 0).long()
