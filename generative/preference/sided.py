"""Losses that judge each side by itself, so that the chosen cannot win by falling less.

    c = pi_c - ref_c,    r = pi_r - ref_r:    the implicit rewards over beta;    s: the logistic function

What is added to both sides does not cancel here: only the reverse KL has these forms. All take
(pi_c, pi_r, ref_c, ref_r, beta) and give [B]. All but KTO look at each pair by itself.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, cat
from torch.nn.functional import logsigmoid

from generative.preference.four import Vector


def nca(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1) -> Vector:
    """NCA for pairs: -log s(beta c) - 1/2 log s(-beta c) - 1/2 log s(-beta r) (Chen et al. 2024)."""
    c, r = beta * (pi_c - ref_c), beta * (pi_r - ref_r)
    return -logsigmoid(c) - 0.5 * logsigmoid(-c) - 0.5 * logsigmoid(-r)


def bco(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1, *, shift: float = 0.0) -> Vector:
    """BCO for pairs: is a completion good? -log s(beta c - shift) - log s(shift - beta r) (Jung et al. 2024).

    The paper's shift is a running mean of the rewards; the default leaves it out, as trl does for pairs.
    """
    return -logsigmoid(beta * (pi_c - ref_c) - shift) - logsigmoid(shift - beta * (pi_r - ref_r))


def sppo(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1) -> Vector:
    """SPPO with certain labels: (c - 1/(2 beta))^2 + (r + 1/(2 beta))^2 (Wu et al. 2024, eq. 4.7, P = 1 and 0)."""
    half = 1 / (2 * beta)
    return (pi_c - ref_c - half) ** 2 + (pi_r - ref_r + half) ** 2


def apo_zero(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1) -> Vector:
    """s(-beta c) + s(beta r): the chosen rise and the rejected fall (D'Oosterlinck et al. 2024, eq. 7).

    For chosen that are better than what the model writes.
    """
    return (-beta * (pi_c - ref_c)).sigmoid() + (beta * (pi_r - ref_r)).sigmoid()


def apo_down(pi_c: Vector, pi_r: Vector, ref_c: Vector, ref_r: Vector, beta: float = 0.1) -> Vector:
    """s(beta c) + s(-beta (c - r)): both fall, the rejected more (D'Oosterlinck et al. 2024, eq. 8).

    For chosen that are worse than what the model writes.
    """
    c, r = pi_c - ref_c, pi_r - ref_r
    return (beta * c).sigmoid() + (-beta * (c - r)).sigmoid()


def kto(
    pi_c: Vector,
    pi_r: Vector,
    ref_c: Vector,
    ref_r: Vector,
    beta: float = 0.1,
    *,
    baseline: Float[Tensor, "..."] | None = None,
) -> Vector:
    """KTO: the mean of s(beta (z - c)) and s(beta (r - z)), gains and losses around z (Ethayarajh et al. 2024).

    z = `baseline`, the policy's KL from its reference, of shape [B] or []. By default it is the mean of all c and r of
    the batch where that is positive, and nothing flows back through it: an estimate from the pairs themselves, where
    the paper draws completions of other prompts. So the loss of a pair depends on the others of its batch.
    """
    c, r = pi_c - ref_c, pi_r - ref_r
    z = cat([c, r]).mean().clamp(min=0.0).detach() if baseline is None else baseline
    return 0.5 * ((beta * (z - c)).sigmoid() + (beta * (r - z)).sigmoid())
