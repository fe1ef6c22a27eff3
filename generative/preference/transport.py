"""Losses of a whole batch: one distribution of rewards is to lie above another, whoever is paired with whom.

Both sides are sorted, and the i-th smallest is compared with the i-th smallest: the one-dimensional optimal transport
(Melnyk et al. 2024, "Distributional preference alignment of LLMs via optimal transport"). The i-th number of the result
belongs to a rank, not to pair i; its mean is the loss. Of parts of the batch it is another.
"""

from __future__ import annotations

from torch.nn.functional import logsigmoid

from generative.preference.four import Vector


def aot(
    pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1, *, smoothing: float = 0.0
) -> Vector:
    """AOT for pairs: the policy's margins pi_c - pi_r above the reference's (algorithm 1)."""
    return _above((pi_c - pi_r).sort().values - (ref_c - ref_r).sort().values, beta, smoothing)


def aot_unpaired(
    pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1, *, smoothing: float = 0.0
) -> Vector:
    """AOT without pairs: the log-ratios of the chosen above those of the rejected (algorithm 1)."""
    return _above((pi_c - ref_c).sort().values - (pi_r - ref_r).sort().values, beta, smoothing)


def _above(gap: Vector, beta: float, smoothing: float) -> Vector:
    return -(1 - smoothing) * logsigmoid(beta * gap) - smoothing * logsigmoid(-beta * gap)
