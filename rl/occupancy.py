"""How often an episode visits each state: the exact expectation, and with it the expected length of an episode.

    d = start + gamma P^T d        (Puterman 1994, sec. 6.9, unnormalised; Sutton & Barto 2018, eq. 9.2 and page 199)

P leaves out the outcomes that end the episode, so the state that an episode ends in is not counted: `visits` are the
times that an action is taken.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from envs.mdp import TabularMDP
from rl.chain import Chain, PolicyError


def visits(mdp: TabularMDP, policy: Shaped[Tensor, "*policy"], gamma: float = 1.0) -> Float64[Tensor, "S"]:
    """Expected (discounted) number of actions taken in each state, in an episode from the start distribution.

    Args:
        mdp: the world.
        policy: an action for each state, Int64 `[S]`, or probabilities, Float64 `[S, A]`.
        gamma: the t-th action counts gamma^t. At 1 the sum over states is the expected length of an episode; states
            that an episode can return to for ever count inf.

    Raises:
        PolicyError: for a policy of another shape.
    """
    chain = Chain.of(mdp, policy)
    if chain.batch:
        raise PolicyError(f"the policy is {list(policy.shape)}, a batch, expected one policy")
    return chain.visits(mdp.start, gamma)


def visits_within(mdp: TabularMDP, policies: Iterable[Shaped[Tensor, "*policy"]]) -> Float64[Tensor, "S"]:
    """`visits` at gamma 1 of an episode that is cut after as many steps as there are `policies`, one for each step.

    Each is as in `visits`; together they may differ from step to step, as those of a finite horizon do.
    """
    d = mdp.start.clone()
    total = torch.zeros_like(d)
    for policy in policies:
        total += d
        chain = Chain.of(mdp, policy)
        d = torch.zeros_like(d).index_add_(0, chain.next.flatten(), (d[:, None] * chain.weight).flatten())
    return total
