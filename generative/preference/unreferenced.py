"""Losses without a reference, of log-probabilities per token (`generative.preference.four.per_token`).

They take the reference's two vectors like all others, and do not look at them. They give [B].
"""

from __future__ import annotations

from torch.nn.functional import logsigmoid

from generative.preference.four import Vector, log1mexp

SURE = -1e-6
"""A mean log-probability is taken for no more: at 0 the odds are infinite."""


def simpo(
    pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 2.0, *, margin: float = 0.5
) -> Vector:
    """SimPO: -log s(beta (pi_c - pi_r) - margin) (Meng et al. 2024, eq. 6, gamma = `margin`).

    It is ln 2 where the chosen is more likely by margin / beta nats a token: 0.25 with these numbers, 5 with a beta of
    0.1, which suits losses of sums. Its authors have a beta of 2 to 10.
    """
    return -logsigmoid(beta * (pi_c - pi_r) - margin)


def orpo(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1) -> Vector:
    """ORPO: -pi_c - beta log s(log odds(chosen) - log odds(rejected)) (Hong et al. 2024, eqs. 6 and 7, lambda = beta).

    odds = p / (1 - p) with p = exp(mean log-probability of a token). The first term is SFT's.
    """
    c, r = pi_c.clamp(max=SURE), pi_r.clamp(max=SURE)
    return -pi_c - beta * logsigmoid((c - log1mexp(c)) - (r - log1mexp(r)))
