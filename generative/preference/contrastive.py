"""Losses of one difference: by how much more than the reference the policy prefers the chosen.

    h = (pi_c - ref_c) - (pi_r - ref_r),    beta h: the difference of the implicit rewards

Anything that is added to both sides leaves them as they are; so f-divergences may take the place of the reverse KL
(`generative.preference.four.diverging`). All take (pi_c, pi_r, ref_c, ref_r, beta) and give [B].
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from generative.preference.four import Vector, exponential


def log_ratio(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector) -> Vector:
    """h, the argument of every loss. Each side is taken against its reference first, so h is exactly 0 at the start."""
    return (pi_c - ref_c) - (pi_r - ref_r)


def sigmoid(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1) -> Vector:
    """DPO: -log sigmoid(beta h) (Rafailov et al. 2023, eq. 7)."""
    return -logsigmoid(beta * log_ratio(pi_c, pi_r, ref_c, ref_r))


def bradley_terry(
    pi_c: Vector,
    pi_r: Vector,
    ref_c: Vector,
    ref_r: Vector,
    beta: float = 0.1,
    *,
    wins: Float[Tensor, "B"] | float = 1.0,
) -> Vector:
    """-p log sigmoid(beta h) - (1 - p) log sigmoid(-beta h), where the chosen wins with probability p = `wins`.

    The mean of DPO's loss over labels drawn by the Bradley-Terry model (Rafailov et al. 2023, eqs. 1 and 7): with
    p = sigmoid(r_c - r_r) its minimum is the policy pi_ref exp(r / beta) / Z, exactly.
    """
    z = beta * log_ratio(pi_c, pi_r, ref_c, ref_r)
    return -wins * logsigmoid(z) - (1 - wins) * logsigmoid(-z)


def cdpo(
    pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1, *, smoothing: float = 0.1
) -> Vector:
    """Conservative DPO: a label is wrong with probability `smoothing` (Mitchell 2023, a note on noisy preferences)."""
    return bradley_terry(pi_c, pi_r, ref_c, ref_r, beta, wins=1 - smoothing)


def robust(
    pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1, *, smoothing: float = 0.1
) -> Vector:
    """The unbiased estimate of DPO's clean loss when labels flip with probability `smoothing` < 1/2.

    ((1 - e) l(h) - e l(-h)) / (1 - 2 e) with l(h) = -log sigmoid(beta h) (Chowdhury et al. 2024, "rDPO"). It may be
    negative.
    """
    z = beta * log_ratio(pi_c, pi_r, ref_c, ref_r)
    return (smoothing * logsigmoid(-z) - (1 - smoothing) * logsigmoid(z)) / (1 - 2 * smoothing)


def ipo(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1) -> Vector:
    """IPO: (h - 1 / (2 beta))^2 (Azar et al. 2023, eq. 17): of sums over tokens, or of whatever it is given."""
    return (log_ratio(pi_c, pi_r, ref_c, ref_r) - 1 / (2 * beta)) ** 2


def hinge(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1) -> Vector:
    """max(0, 1 - beta h): SLiC's loss on DPO's reward (Zhao et al. 2023; Liu et al. 2024, "RSO")."""
    return relu(1 - beta * log_ratio(pi_c, pi_r, ref_c, ref_r))


def exo(
    pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1, *, smoothing: float = 1e-3
) -> Vector:
    """EXO for pairs: KL(q || p) where q = sigmoid(beta h) and p = 1 - `smoothing` (Ji et al. 2024, eq. 16).

    The divergence of DPO the other way round: the policy seeks the mode. `smoothing` must be above 0.
    """
    z = beta * log_ratio(pi_c, pi_r, ref_c, ref_r)
    right, wrong = logsigmoid(z), logsigmoid(-z)
    return right.exp() * (right - math.log1p(-smoothing)) + wrong.exp() * (wrong - math.log(smoothing))


def discopop(
    pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1, *, temperature: float = 0.05
) -> Vector:
    """DiscoPOP: log-ratio modulated between -log sigmoid(z) and exp(-z), z = beta h (Lu et al. 2024, eq. 5).

    The share of the exponential is sigmoid(z / temperature).
    """
    z = beta * log_ratio(pi_c, pi_r, ref_c, ref_r)
    share = (z / temperature).sigmoid()
    return (1 - share) * -logsigmoid(z) + share * exponential(-z)
