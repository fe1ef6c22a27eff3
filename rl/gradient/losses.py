"""Policy gradients: what is descended on, one number for each sample, and what is logged of it.

    log pi    log-probability of the action taken         A    its advantage, a constant: no gradient flows into it
    rho       pi / pi_old, its ratio to the probability with which it was taken

The gradient of -A log pi is minus the score-function estimate of the policy gradient (Sutton & Barto 2018, eq. 13.5 to
13.11); at rho = 1 that of -A rho is the same.

Source: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", Machine
Learning 1992; Schulman et al., "Proximal policy optimization algorithms", arXiv:1707.06347.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from rl import td


def log_prob(logits: Float[Tensor, "*b A"], action: Int64[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """log pi of `action` under the softmax of `logits`."""
    return td.of(logits.log_softmax(-1), action)


def entropy(logits: Float[Tensor, "*b A"]) -> Float[Tensor, "*b"]:
    """-sum_a pi log pi, in nats: log A where all are equal, 0 where nothing is left to chance."""
    log_pi = logits.log_softmax(-1)
    return -(log_pi.exp() * log_pi).sum(-1)


def policy_gradient(log_pi: Float[Tensor, "*b"], advantage: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """-A log pi: Williams 1992, theorem 1; Sutton & Barto eq. 13.8 and 13.11."""
    return -advantage.detach() * log_pi


def clipped_surrogate(
    log_pi: Float[Tensor, "*b"], old_log_pi: Float[Tensor, "*b"], advantage: Float[Tensor, "*b"], clip: float
) -> Float[Tensor, "*b"]:
    """-min(rho A, clamp(rho, 1 - clip, 1 + clip) A): Schulman et al. 2017, eq. 7.

    An action that became likelier (A > 0) or less likely (A < 0) by more than `clip` is pushed no further; one that
    went the wrong way is called back from however far.
    """
    rho = (log_pi - old_log_pi.detach()).exp()
    advantage = advantage.detach()
    return -torch.minimum(rho * advantage, rho.clamp(1 - clip, 1 + clip) * advantage)


def squared(v: Float[Tensor, "*b"], target: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """(target - v)^2 / 2, whose gradient is the error (Sutton & Barto eq. 9.4 and 9.7)."""
    return (target.detach() - v).square() / 2


def approximate_kl(log_pi: Float[Tensor, "*b"], old_log_pi: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """rho - 1 - log rho: never negative, and over actions of the old policy KL(old, new) on average.

    Source: Schulman, "Approximating KL divergence", 2020, estimator k3: its q, from which is drawn, is the old policy.
    """
    log_rho = log_pi - old_log_pi
    return log_rho.expm1() - log_rho


def beyond(log_pi: Float[Tensor, "*b"], old_log_pi: Float[Tensor, "*b"], clip: float) -> Bool[Tensor, "*b"]:
    """Whether rho is further than `clip` from 1."""
    return (log_pi - old_log_pi).expm1().abs() > clip


def explained_variance(v: Float[Tensor, "R B"], target: Float[Tensor, "R B"]) -> Float[Tensor, "R"]:
    """1 - Var(target - v) / Var(target): 1 for a perfect critic, 0 for one that says the same of every state.

    Where all targets are equal there is nothing to explain: 0.
    """
    there, left = target.var(1, correction=0), (target - v).var(1, correction=0)
    return torch.where(there > 0, 1 - left / there.clamp(min=torch.finfo(there.dtype).tiny), 0.0)


def normalised(advantage: Float[Tensor, "R B"]) -> Float[Tensor, "R B"]:
    """Mean 0 and variance 1, each replica by itself; a single one, or equal ones, become 0."""
    centred = advantage - advantage.mean(1, keepdim=True)
    return centred / (centred.square().sum(1, keepdim=True) / max(1, advantage.shape[1] - 1)).sqrt().add(1e-8)
