"""Returns along time: the targets that n-step, lambda and Monte Carlo methods share.

    r_t            reward of step t                               [..., T], time last
    discount_t     gamma, or 0 where step t ended the world: a time limit is no end
    v_t            the value of step t's true successor, also where the episode ended there
    last_t         step t is the last of its episode, either way: what stands after it belongs to another one

Wherever an episode is cut, by its last step or by the end of the array, what follows is worth v_t: discount_t decides
whether that counts. So an end, a time limit and a piece of an episode are all told apart by the two of them.

Source: Sutton & Barto 2018, eq. 3.9 (returns), 7.1 (n steps), 12.3 and 12.22 (lambda); Schulman et al. 2016, eq. 16
(generalised advantages).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def lambda_returns(
    r: Float[Tensor, "*b T"],
    discount: Float[Tensor, "*b T"],
    v: Float[Tensor, "*b T"],
    last: Bool[Tensor, "*b T"],
    lam: float | Float[Tensor, "*b T"],
) -> Float[Tensor, "*b T"]:
    """G_t = r_t + discount_t [(1 - lam_t) v_t + lam_t G_(t+1)], and v_t in place of G_(t+1) where t is cut.

    `lam` 1 gives the Monte Carlo return, 0 the one-step target; one for each step (0 where an action was not greedy, a
    probability, a clipped ratio) gives Watkins's Q(lambda), tree backup or V-trace's products.
    """
    out = torch.empty_like(r)
    lam = torch.as_tensor(lam, dtype=r.dtype, device=r.device).expand_as(r)
    follows = v[..., -1]  # what comes after the step at hand
    for t in reversed(range(r.shape[-1])):
        ahead = torch.where(last[..., t], v[..., t], follows)
        mixed = v[..., t] + lam[..., t] * (ahead - v[..., t])
        out[..., t] = follows = r[..., t] + discount[..., t] * mixed
    return out


def n_step_returns(
    r: Float[Tensor, "*b T"],
    discount: Float[Tensor, "*b T"],
    v: Float[Tensor, "*b T"],
    last: Bool[Tensor, "*b T"],
    n: int,
) -> Float[Tensor, "*b T"]:
    """n rewards and then v; fewer where an episode or the array is cut before (Sutton & Barto eq. 7.1).

    Raises:
        ValueError: for n below 1.
    """
    if n < 1:
        raise ValueError(f"n-step returns with n = {n}, expected 1 or more")
    out = r + discount * v
    for _ in range(n - 1):  # one step more for all that are not cut: G^(k+1)_t = r_t + discount_t G^k_(t+1)
        longer = torch.cat([out[..., 1:], v[..., -1:]], -1)
        out = r + discount * torch.where(last, v, longer)
    return out


def discounted_sums(r: Float[Tensor, "*b T"], gamma: float) -> Float[Tensor, "*b T"]:
    """G_t = r_t + gamma G_(t+1) and nothing after the array: one episode, padded with zeros behind its end if need be.

    What `lambda_returns` gives with lambda 1 and all v 0, by doubling: sums of 2k rewards from two sums of k. Zeros
    more behind change no bit.
    """
    out, k = r, 1
    while k < r.shape[-1]:
        out = torch.cat([out[..., :-k] + gamma**k * out[..., k:], out[..., -k:]], -1)
        k *= 2
    return out


def advantages(
    r: Float[Tensor, "*b T"],
    discount: Float[Tensor, "*b T"],
    v_here: Float[Tensor, "*b T"],
    v: Float[Tensor, "*b T"],
    last: Bool[Tensor, "*b T"],
    lam: float,
) -> Float[Tensor, "*b T"]:
    """Generalised advantages: the lambda return minus the value of the state itself, `v_here`."""
    return lambda_returns(r, discount, v, last, lam) - v_here
