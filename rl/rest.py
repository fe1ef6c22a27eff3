"""Where one can stay for ever at no cost, without the world ending.

At gamma 1 such a rest is worth 0, and better than an end that costs. A greedy step never finds it: waiting is worth
what comes after, q(wait) = v, whatever v is (Bertsekas & Tsitsiklis 1991 assume such worlds away).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from envs.mdp import TabularMDP


def rest(mdp: TabularMDP) -> tuple[Bool[Tensor, "S"], Int64[Tensor, "S"]]:
    """The states in which a rest can begin, and an action that begins or continues it.

    The largest set of states with an action each that earns nothing, ends nothing and stays within the set.
    """
    possible = mdp.prob > 0  # [S, A, K]
    free = ~(possible & (mdp.terminated | (mdp.reward != 0))).any(-1)  # [S, A]
    within = free.any(-1)  # [S]
    while True:
        free &= ~(possible & ~within[mdp.next_state.long()]).any(-1)
        narrower = free.any(-1)
        if torch.equal(narrower, within):
            return within, free.int().argmax(-1)
        within = narrower
