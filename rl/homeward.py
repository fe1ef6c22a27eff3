"""Of equally good actions, those that bring the end of the episode nearer, or else a rest.

At gamma 1 a greedy policy need not be optimal: where waiting costs nothing it is a best action, and a policy that waits
for ever earns nothing. v = r_pi + P_pi v has one solution, the policy's value, if every episode ends (Bertsekas &
Tsitsiklis 1991, prop. 2) or comes to a rest in states of value 0, where nothing is earned for ever.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from scipy import sparse  # type: ignore[import-untyped]  # scipy ships no types
from scipy.sparse import csgraph  # type: ignore[import-untyped]  # likewise
from torch import Tensor

from envs.mdp import TabularMDP
from rl.chain import Chain
from rl.graph import recurrent
from rl.rest import rest

NOTHING = 1e-12  # a value below is 0 but for rounding


def homeward(mdp: TabularMDP, good: Bool[Tensor, "S A"], values: Float64[Tensor, "S"]) -> Int64[Tensor, "S"]:
    """One of the `good` actions for each state: one that may lead to the end in the fewest steps; where none does, one
    that may lead to a rest by good actions in states of value 0, or that continues it; else the first.

    "May": with some chance. Where every state can come to an end or such a rest by good actions, this policy does.
    """
    leads = _nearer(mdp, good, torch.zeros(mdp.states, dtype=torch.bool))
    astray = ~leads.any(-1)  # good actions lead from here to other such states only
    chosen = torch.where(astray, good.int().argmax(-1), leads.int().argmax(-1))
    if not astray.any():
        return chosen
    resting, stay = rest(mdp, good & (astray & (values.abs() < NOTHING))[:, None])
    leads = _nearer(mdp, good, resting)
    chosen = torch.where(astray & leads.any(-1), leads.int().argmax(-1), chosen)
    return torch.where(resting, stay, chosen)


def earns(mdp: TabularMDP, policy: Int64[Tensor, "S"], values: Float64[Tensor, "S"]) -> bool:
    """Whether `policy`, greedy for the undiscounted `values` v = r_pi + P_pi v, is worth just these.

    It is where every state that it returns to for ever earns nothing and has value 0. In work linear in S K, while
    the policy's own value takes a linear solve.
    """
    chain = Chain.of(mdp, policy)
    for_ever = torch.from_numpy(recurrent(chain.matrix, chain.ends.numpy()))
    return not bool((for_ever & ((chain.reward != 0) | (values.abs() >= NOTHING))).any())


def _nearer(mdp: TabularMDP, good: Bool[Tensor, "S A"], home: Bool[Tensor, "S"]) -> Bool[Tensor, "S A"]:
    """The good actions that may be the first of the fewest that lead to an end or to a state of `home`."""
    S, A, K = mdp.next_state.shape
    usable = good[:, :, None] & (mdp.prob > 0)  # [S, A, K]
    after = mdp.next_state.long()
    to = torch.where(mdp.terminated | home[after], S, after)  # home is state S
    source = torch.arange(S)[:, None, None].expand(S, A, K)
    edges = (np.ones(int(usable.sum()), np.int8), (to[usable].numpy(), source[usable].numpy()))
    backwards = sparse.csr_matrix(edges, shape=(S + 1, S + 1))
    _, toward = csgraph.breadth_first_order(backwards, S, directed=True, return_predecessors=True)
    return (usable & (to == torch.from_numpy(toward[:S]).long()[:, None, None])).any(-1)
