"""Eligibility traces: how much each pair has to do with what happens now.

    e(s, a) <- gamma lambda e(s, a), and + 1 for the pair at hand          accumulating traces
    q(s, a) <- q(s, a) + alpha delta e(s, a)                               for all pairs

Every world has a trace of its own, e [R, W, S A]. Worlds of a replica that reach one pair correct it by the mean of
their errors, weighted by their traces, times the largest of these traces: with one world that is the book's update, and
with lambda 0 that of `Table.move`. Whose error is known when must not matter, so the weights are those of the moment of
the visit, when nobody knows how it came out: q += alpha share sum of delta e over the worlds,

    share = max e / sum e        over all of a replica's worlds, as the pairs at hand are marked

Source: Sutton & Barto 2018, sec. 12.2 (here in a table: eq. 12.5 with one-hot features).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from rl import state
from rl.tabular.table import Table, summed


class Traces:
    """The traces of every world, zero at first; how many worlds there are is known at the first step."""

    def __init__(self, replicas: int, pairs: int, device: torch.device | str = "cpu") -> None:
        self.e = torch.zeros(replicas, 0, pairs, dtype=torch.float64, device=device)  # [R, W, S A]
        self.share = torch.ones(replicas, pairs, dtype=torch.float64, device=device)  # of the latest visit

    def visit(self, table: Table, entry: Int64[Tensor, "R W"], decay: Float64[Tensor, "R W"]) -> None:
        """Let the traces decay, and mark the pair at hand of every world: a visit in `table`."""
        if not self.e.numel():
            self.e = self.e.new_zeros(*entry.shape, self.e.shape[-1])
        self.e *= decay.unsqueeze(-1)
        self.e.scatter_add_(-1, entry.unsqueeze(-1), torch.ones_like(entry, dtype=torch.float64).unsqueeze(-1))
        self.share = shares(self.e)
        table.count(entry)

    def correct(self, table: Table, error: Float64[Tensor, "R W"], when: Bool[Tensor, "R W"]) -> None:
        """Correct all that the worlds `when` have traces of; of one visit each world once, at whatever turn."""
        change = met(self.e * (error * when).unsqueeze(-1), self.share)
        table.value.view(len(table.value), -1).add_(table.rates() * change)

    def forget(self, over: Bool[Tensor, "R W"]) -> None:
        """Nothing is left in the worlds that are `over`."""
        self.e.masked_fill_(over.unsqueeze(-1), 0.0)

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, ("e", "share"))

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, ("e", "share"), saved)


def shares(trace: Float64[Tensor, "R W E"]) -> Float64[Tensor, "R E"]:
    """max / sum of the sizes of all worlds' traces: 1 for one world, 1 / W where W have the same."""
    if trace.shape[1] == 1:
        return torch.ones_like(trace[:, 0])
    size = trace.abs()
    return size.amax(1) / summed(size).clamp(min=torch.finfo(size.dtype).tiny)


def met(change: Float64[Tensor, "R W E"], share: Float64[Tensor, "R E"]) -> Float64[Tensor, "R E"]:
    """One change from those of W worlds, each proportional to its trace."""
    return change[:, 0] if change.shape[1] == 1 else summed(change) * share
