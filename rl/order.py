"""Sums over a replica's worlds, or over turns, added up one after another.

In what order torch adds a row up depends on the processor's vectors. What is reported of a run is to depend on the run
alone, and to be the same however it is computed.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def total(x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """The sum of each row (in this order on the CPU; other devices do as they see fit)."""
    return x.cumsum(-1)[..., -1]


def mean(x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """The mean of each row, from that sum."""
    return total(x) / x.shape[-1]
