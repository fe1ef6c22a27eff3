"""Eligibility traces: how much each pair has to do with what happens now.

    e(s, a) <- gamma lambda e(s, a), and + 1 for the pair at hand          accumulating traces
    q(s, a) <- q(s, a) + alpha delta e(s, a)                               for all pairs

Every world has a trace of its own, e [R, W, S A]. Worlds of a replica that reach one pair correct it by the mean of
their errors, weighted by their traces, times the largest of these traces: with one world that is the book's update, and
with lambda 0 that of `Table.move`.

Source: Sutton & Barto 2018, sec. 12.2 (here in a table: eq. 12.5 with one-hot features).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from rl import state
from rl.tabular.table import Table


class Traces:
    """The traces of every world, zero at first; how many worlds there are is known at the first step."""

    def __init__(self, replicas: int, pairs: int, device: torch.device | str = "cpu") -> None:
        self.e = torch.zeros(replicas, 0, pairs, dtype=torch.float64, device=device)  # [R, W, S A]

    def visit(self, entry: Int64[Tensor, "R W"], decay: Float64[Tensor, "R W"], when: Bool[Tensor, "R W"]) -> None:
        """Let the traces decay, and mark the pair at hand, in the worlds `when`."""
        if not self.e.numel():
            self.e = self.e.new_zeros(*entry.shape, self.e.shape[-1])
        self.e *= torch.where(when, decay, 1.0).unsqueeze(-1)
        self.e.scatter_add_(-1, entry.unsqueeze(-1), when.double().unsqueeze(-1))

    def correct(
        self, table: Table, entry: Int64[Tensor, "R W"], error: Float64[Tensor, "R W"], when: Bool[Tensor, "R W"]
    ) -> None:
        """Correct all that the worlds `when` have traces of; `entry`, the pair at hand, counts as moved once more."""
        weight = self.e * when.unsqueeze(-1)  # [R, W, E]
        total = summed(weight)
        share = weight.amax(1) / torch.where(total > 0, total, 1.0)
        table.move_all(summed(weight * error.unsqueeze(-1)) * share, entry, when)

    def forget(self, over: Bool[Tensor, "R W"]) -> None:
        """Nothing is left in the worlds that are `over`."""
        self.e.masked_fill_(over.unsqueeze(-1), 0.0)

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, ("e",))

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, ("e",), saved)


def summed(x: Float64[Tensor, "R W E"]) -> Float64[Tensor, "R E"]:
    """The sum over worlds, in an order that depends on W alone: torch's own depends on R, too."""
    while (W := x.shape[1]) > 1:
        half = x[:, : W // 2] + x[:, W // 2 : W // 2 * 2]
        x = torch.cat([half, x[:, W - 1 :]], 1) if W % 2 else half
    return x[:, 0]
