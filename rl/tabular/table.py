"""A table of values that many worlds correct at once: what all tabular learners share.

    value [R, *shape], shape (S,) or (S, A), one table for each replica;  n [R, *shape]   how often each entry was moved

The n-th correction of an entry moves it by alpha / n^omega of its error. Omega in (1/2, 1] satisfies Robbins & Monro
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
        self._calls = 0

    def __getitem__(self, states: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W *A"]:
        """Each replica's own values of its own states."""
        return self.value[self.row, states]

    def move(
        self,
        entry: Int64[Tensor, "R W"],
        error: Float64[Tensor, "R W"],
        when: Bool[Tensor, "R W"] | None = None,
        among: Float64[Tensor, "R W"] | None = None,
    ) -> None:
        """Correct an entry for each world, s or s A + a, by its error; where `when` is given, only in those worlds.

        Worlds of a replica that meet in one entry correct it once, by the mean of their errors. Where some of those
        that were there are due now and others in another call, `among` says of how many each error is one (see
        `meeting`): a mean of those alone that are due would count outcomes by when they come, and not by how often.
        """
        flat, count = self.value.view(len(self.value), -1), self.n.view(len(self.n), -1)
        error, due = _mean_of_equals(error, entry, when, among)
        n = count.gather(1, entry) + due
        step = self.alpha * self.decay(n)
        count.scatter_(1, entry, n)  # worlds that meet write the same number
        flat.scatter_(1, entry, flat.gather(1, entry) + step * error)

    def move_all(
        self, correction: Float64[Tensor, "R E"], entry: Int64[Tensor, "R W"], when: Bool[Tensor, "R W"]
    ) -> None:
        """Correct every entry by its step size times `correction`; those at hand count as moved once more."""
        flat, count = self.value.view(len(self.value), -1), self.n.view(len(self.n), -1)
        count += torch.zeros_like(count).scatter_reduce_(1, entry, when.long(), "amax")
        flat += self.alpha * self.decay(count) * correction

    def decay(self, n: Int64[Tensor, "*b"]) -> Float64[Tensor, "*b"]:
        """1 / n^omega, and 1 for n = 0. To be called once for every move, which is how it knows how far n can be."""
        self._calls += 1
        if self._calls >= len(self._power):
            self._power = powers(2 * self._calls, self.omega).to(n.device)
        return self._power[n]

    def at(self, states: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M *A"]:
        """Values of states [M], or of each replica's own [R, M]."""
        return self[states.expand(len(self.value), states.shape[-1])]

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, STATE, saved)
        self._calls = int(self.n.max())


def powers(size: int, omega: float) -> Float64[Tensor, "size"]:
    """1 / n^omega for n = 0 (1), 1, 2, ..., each rounded by itself."""
    return torch.tensor([1.0, *(n**-omega for n in range(1, size))], dtype=torch.float64)


def meeting(entry: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W"]:
    """How many of a replica's worlds are in the entry of each, itself among them."""
    if entry.shape[1] == 1:
        return torch.ones_like(entry, dtype=torch.float64)
    return (entry[:, :, None] == entry[:, None, :]).sum(-1).double()


def _mean_of_equals(
    error: Float64[Tensor, "R W"],
    entry: Int64[Tensor, "R W"],
    when: Bool[Tensor, "R W"] | None,
    among: Float64[Tensor, "R W"] | None,
) -> tuple[Float64[Tensor, "R W"], Int64[Tensor, "R W"]]:
    """The mean error of the worlds in the same entry, the same number in each of them, and 1 where there are any."""
    if error.shape[1] == 1:
        return (error, torch.ones_like(entry)) if when is None else (error * when, when.long())
    same = (entry[:, :, None] == entry[:, None, :]).to(error.dtype)  # [R, W, W]
    if when is None:
        return (same @ error.unsqueeze(-1)).squeeze(-1) / same.sum(-1), torch.ones_like(entry)
    there = when.to(error.dtype)
    worlds = (same @ there.unsqueeze(-1)).squeeze(-1)
    if among is not None:
        return (same @ (error * there / among.clamp(min=1)).unsqueeze(-1)).squeeze(-1), (worlds > 0).long()
    return (same @ (error * there).unsqueeze(-1)).squeeze(-1) / worlds.clamp(min=1), (worlds > 0).long()
