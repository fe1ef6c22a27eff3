"""Where one can stay for ever at no cost, without the world ending.

At gamma 1 such a rest is worth 0, and better than an end that costs. A greedy step never finds it: waiting is worth
what comes after, q(wait) = v, whatever v is (Bertsekas & Tsitsiklis 1991 assume such worlds away).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int64
from scipy import sparse  # type: ignore[import-untyped]  # scipy ships no types
from torch import Tensor

from envs.mdp import TabularMDP


def rest(mdp: TabularMDP, among: Bool[Tensor, "S A"] | None = None) -> tuple[Bool[Tensor, "S"], Int64[Tensor, "S"]]:
    """The states in which a rest can begin, and an action that begins or continues it.

    The largest set of states with an action each that earns nothing on average, ends nothing and stays within the set;
    with `among` by these actions only. Every action is struck out once at most: the work is linear in S A K.
    """
    S, A, K = mdp.next_state.shape
    possible = mdp.prob > 0  # [S, A, K]
    allowed = (mdp.expected_reward() == 0) & ~(possible & mdp.terminated).any(-1)  # [S, A]
    free = (allowed if among is None else allowed & among).flatten().numpy()  # [S A]
    left = free.reshape(S, A).sum(1)  # how many free actions a state still has
    gone = np.flatnonzero(left == 0)
    if 0 < len(gone) < S:
        steps = free[:, None] & possible.view(S * A, K).numpy()
        pair, to = steps.nonzero()[0], mdp.next_state.view(S * A, K).numpy()[steps]
        leads = sparse.csc_matrix((np.ones(len(pair), np.int8), (pair, to)), shape=(S * A, S))
        while len(gone):
            first, count = leads.indptr[gone], np.diff(leads.indptr)[gone]
            where = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
            struck = np.unique(leads.indices[where])
            struck = struck[free[struck]]
            free[struck] = False
            states, lost = np.unique(struck // A, return_counts=True)
            left[states] -= lost
            gone = states[left[states] == 0]
    return torch.from_numpy(left > 0), torch.from_numpy(free.reshape(S, A).argmax(1))
