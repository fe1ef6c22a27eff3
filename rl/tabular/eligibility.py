"""Traces of many worlds in one table, where the step size is within the trace: for true online TD(lambda).

    table[i] <- table[i] + (error of world w) (trace of i in world w)

With one world this is the book's. Where worlds of a replica meet, their errors are averaged as in `rl.tabular.traces`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from rl.tabular.table import Table
from rl.tabular.traces import summed


def met(change: Float64[Tensor, "R W *E"], trace: Float64[Tensor, "R W *E"]) -> Float64[Tensor, "R *E"]:
    """One change from those of W worlds, each proportional to its trace: (max trace / sum of traces) sum of changes."""
    if change.shape[1] == 1:
        return change[:, 0]
    R, W = change.shape[:2]
    change, size = change.reshape(R, W, -1), trace.abs().reshape(R, W, -1)
    share = size.amax(1) / summed(size).clamp(min=torch.finfo(size.dtype).tiny)
    return (summed(change) * share).view(R, *trace.shape[2:])


def visited(table: Table, states: Int64[Tensor, "R W"]) -> Float64[Tensor, "R S"]:
    """Count a visit of these states; the step size of every state, alpha / visits^omega (alpha before the first).

    Worlds of a replica that are in one state count one visit.
    """
    table.n.scatter_(1, states, table.n.gather(1, states) + 1)  # worlds that meet write the same number
    return table.alpha * table.decay(table.n)
