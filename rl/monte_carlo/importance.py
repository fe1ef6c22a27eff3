"""Importance sampling: what a policy is worth, from the episodes of another one.

    r_t, ratio_t [M, T]        reward, and pi(a | s) / b(a | s) of the step's action; time last
    rho_t = ratio_t ratio_(t+1) ... ratio_(T-1)             of the rest of the episode

An estimator turns episodes into a target and a weight for each step, and the estimate is the weighted mean of targets:

    ordinary        target rho_t G_t     weight 1          unbiased, and its variance may be infinite
    weighted        target G_t           weight rho_t      biased, the less the more returns; its variance falls to 0
    per-decision    target G~_t          weight 1          unbiased: each reward is weighed only by what led to it

Beyond 1e200 rho is cut to that, where float64 ends.

Source: Sutton & Barto 2018, eq. 5.5, 5.6 and 5.14; Precup, Sutton & Singh, "Eligibility traces for off-policy policy
evaluation", ICML 2000.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float64
from torch import Tensor

from rl.monte_carlo.episodes import Ended
from rl.returns import lambda_returns

LARGEST = 1e200

Estimator = Callable[[Ended, float], tuple[Float64[Tensor, "M T"], Float64[Tensor, "M T"]]]  # (episodes, gamma)


def products(ended: Ended) -> Float64[Tensor, "M T"]:
    """rho_t, from the column `ratio`."""
    ratio = torch.where(ended.there, ended.columns["ratio"], 1.0)
    rho = ratio.flip(-1).cumprod(-1).flip(-1)
    return rho.nan_to_num(nan=0.0).clamp(max=LARGEST)  # where it overflowed and then met a 0 it is 0


def ordinary(ended: Ended, gamma: float) -> tuple[Float64[Tensor, "M T"], Float64[Tensor, "M T"]]:
    """Ordinary importance sampling, eq. 5.5."""
    target = products(ended) * ended.returns(gamma)
    return target, torch.ones_like(target)


def weighted(ended: Ended, gamma: float) -> tuple[Float64[Tensor, "M T"], Float64[Tensor, "M T"]]:
    """Weighted importance sampling, eq. 5.6."""
    return ended.returns(gamma), products(ended)


def per_decision(ended: Ended, gamma: float) -> tuple[Float64[Tensor, "M T"], Float64[Tensor, "M T"]]:
    """Per-decision importance sampling, eq. 5.14: G~_t = ratio_t (r_t + gamma G~_(t+1)).

    H_t = G~_t / ratio_t is a return whose discount is gamma ratio_(t+1).
    """
    r, ratio = ended.columns["reward"], ended.columns["ratio"]
    ahead = torch.cat([ratio[:, 1:], torch.ones_like(ratio[:, :1])], 1)
    target = ratio * lambda_returns(r, gamma * ahead, torch.zeros_like(r), ended.last, 1.0)
    return target, torch.ones_like(target)
