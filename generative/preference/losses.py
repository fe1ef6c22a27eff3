"""A preference is four numbers: every loss here is a function of four vectors [B] of log-probabilities.

    pi_c, pi_r      log pi(chosen | prompt), log pi(rejected | prompt) under the policy that is trained
    ref_c, ref_r    the same under the reference, which stays fixed
    h               (pi_c - ref_c) - (pi_r - ref_r): by how much more than the reference the policy prefers the chosen
    beta            how strongly the policy is held to the reference; beta h is the difference of implicit rewards

Where the log-probabilities come from is not known here: a language model, a policy on a grid, or a denoiser's
surrogate. All arguments come in the order (pi_c, pi_r, ref_c, ref_r), and every loss returns [B].
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

Four = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def log_ratio(
    pi_c: Float[Tensor, "B"], pi_r: Float[Tensor, "B"], ref_c: Float[Tensor, "B"], ref_r: Float[Tensor, "B"]
) -> Float[Tensor, "B"]:
    """h, the argument of every loss. Each side is taken against its reference first, so h is exactly 0 at the start."""
    return (pi_c - ref_c) - (pi_r - ref_r)


def sigmoid(
    pi_c: Float[Tensor, "B"],
    pi_r: Float[Tensor, "B"],
    ref_c: Float[Tensor, "B"],
    ref_r: Float[Tensor, "B"],
    beta: float = 0.1,
) -> Float[Tensor, "B"]:
    """DPO: -log sigmoid(beta h) (Rafailov et al. 2023, eq. 7)."""
    return -logsigmoid(beta * log_ratio(pi_c, pi_r, ref_c, ref_r))


def bradley_terry(
    pi_c: Float[Tensor, "B"],
    pi_r: Float[Tensor, "B"],
    ref_c: Float[Tensor, "B"],
    ref_r: Float[Tensor, "B"],
    beta: float = 0.1,
    *,
    wins: Float[Tensor, "B"] | float = 1.0,
) -> Float[Tensor, "B"]:
    """-p log sigmoid(beta h) - (1 - p) log sigmoid(-beta h), where the chosen wins with probability p = `wins`.

    The mean of DPO's loss over labels drawn by the Bradley-Terry model (Rafailov et al. 2023, eqs. 1 and 7): with
    p = sigmoid(r_c - r_r) its minimum is the policy pi_ref exp(r / beta) / Z, exactly.
    """
    z = beta * log_ratio(pi_c, pi_r, ref_c, ref_r)
    return -wins * logsigmoid(z) - (1 - wins) * logsigmoid(-z)


def cdpo(
    pi_c: Float[Tensor, "B"],
    pi_r: Float[Tensor, "B"],
    ref_c: Float[Tensor, "B"],
    ref_r: Float[Tensor, "B"],
    beta: float = 0.1,
    *,
    smoothing: float = 0.1,
) -> Float[Tensor, "B"]:
    """Conservative DPO: a label is wrong with probability `smoothing` (Mitchell 2023, a note on noisy preferences)."""
    return bradley_terry(pi_c, pi_r, ref_c, ref_r, beta, wins=1 - smoothing)


def robust(
    pi_c: Float[Tensor, "B"],
    pi_r: Float[Tensor, "B"],
    ref_c: Float[Tensor, "B"],
    ref_r: Float[Tensor, "B"],
    beta: float = 0.1,
    *,
    smoothing: float = 0.1,
) -> Float[Tensor, "B"]:
    """The unbiased estimate of DPO's clean loss when labels flip with probability `smoothing` < 1/2.

    ((1 - e) l(h) - e l(-h)) / (1 - 2 e) with l(h) = -log sigmoid(beta h) (Chowdhury et al. 2024, "rDPO"). It may be
    negative.
    """
    z = beta * log_ratio(pi_c, pi_r, ref_c, ref_r)
    return (smoothing * logsigmoid(-z) - (1 - smoothing) * logsigmoid(z)) / (1 - 2 * smoothing)


def ipo(
    pi_c: Float[Tensor, "B"],
    pi_r: Float[Tensor, "B"],
    ref_c: Float[Tensor, "B"],
    ref_r: Float[Tensor, "B"],
    beta: float = 0.1,
) -> Float[Tensor, "B"]:
    """IPO: (h - 1 / (2 beta))^2 (Azar et al. 2023, eq. 17), of log-probabilities summed over the tokens."""
    return (log_ratio(pi_c, pi_r, ref_c, ref_r) - 1 / (2 * beta)) ** 2


def hinge(
    pi_c: Float[Tensor, "B"],
    pi_r: Float[Tensor, "B"],
    ref_c: Float[Tensor, "B"],
    ref_r: Float[Tensor, "B"],
    beta: float = 0.1,
) -> Float[Tensor, "B"]:
    """max(0, 1 - beta h): SLiC's loss on DPO's reward (Zhao et al. 2023; Liu et al. 2024, "RSO")."""
    return relu(1 - beta * log_ratio(pi_c, pi_r, ref_c, ref_r))


LOSSES: dict[str, Four] = {"sigmoid": sigmoid, "cdpo": cdpo, "robust": robust, "ipo": ipo, "hinge": hinge}
