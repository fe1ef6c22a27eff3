"""Of equally good actions, those that bring the end of the episode nearer.

At gamma 1 a greedy policy need not be optimal: where waiting costs nothing it is a best action, and a policy that waits
for ever earns nothing. Greedy actions that also end every episode are optimal (Bertsekas & Tsitsiklis 1991, prop. 2).
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Int64
from scipy import sparse  # type: ignore[import-untyped]  # scipy ships no types
from scipy.sparse import csgraph  # type: ignore[import-untyped]  # likewise
from torch import Tensor

from envs.mdp import TabularMDP


def homeward(mdp: TabularMDP, good: Bool[Tensor, "S A"]) -> Int64[Tensor, "S"]:
    """One of the `good` actions for each state: one that may lead to the end in the fewest steps, else the first.

    "May": with some chance. Where every state can come to its end by good actions, this policy ends every episode.
    """
    S, A, K = mdp.next_state.shape
    usable = good[:, :, None] & (mdp.prob > 0)  # [S, A, K]
    to = torch.where(mdp.terminated, S, mdp.next_state.long())  # the end is state S
    source = torch.arange(S)[:, None, None].expand(S, A, K)
    edges = (np.ones(int(usable.sum()), np.int8), (to[usable].numpy(), source[usable].numpy()))
    backwards = sparse.csr_matrix(edges, shape=(S + 1, S + 1))
    _, toward = csgraph.breadth_first_order(backwards, S, directed=True, return_predecessors=True)
    leads = (usable & (to == torch.from_numpy(toward[:S]).long()[:, None, None])).any(-1)  # [S, A]
    return torch.where(leads.any(-1), leads.int().argmax(-1), good.int().argmax(-1))
