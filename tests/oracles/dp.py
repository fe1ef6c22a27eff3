"""Exact answers for finite worlds, found the slow way: with [S, S] matrices, by trying every policy, by loops.

Nothing here shares code with `rl.dp`: transitions are read entry by entry, values come from numpy's dense solve.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch

from envs.mdp import TabularMDP

Array = np.ndarray[Any, np.dtype[np.float64]]


def dense(mdp: TabularMDP, policy: Array) -> tuple[Array, Array]:
    """(P [S, S] without the ended outcomes, r [S]) under action probabilities `policy` [S, A]."""
    S, A, K = mdp.next_state.shape
    P, r = np.zeros((S, S)), np.zeros(S)
    for s in range(S):
        for a in range(A):
            for k in range(K):
                p = policy[s, a] * float(mdp.prob[s, a, k])
                r[s] += p * float(mdp.reward[s, a, k])
                if not mdp.terminated[s, a, k]:
                    P[s, int(mdp.next_state[s, a, k])] += p
    return P, r


def dense_value(mdp: TabularMDP, policy: Array, gamma: float) -> Array:
    """(I - gamma P)^-1 r."""
    P, r = dense(mdp, policy)
    return np.linalg.solve(np.eye(len(r)) - gamma * P, r)


def one_hot(policy: Any, actions: int) -> Array:
    """An action for each state as probabilities [S, A]."""
    return np.eye(actions)[np.asarray(policy)]


def best_of_all(mdp: TabularMDP, gamma: float) -> Array:
    """v* [S]: the largest value over all A^S deterministic policies, each solved by itself. For tiny worlds."""
    policies = itertools.product(range(mdp.actions), repeat=mdp.states)
    return np.max([dense_value(mdp, one_hot(policy, mdp.actions), gamma) for policy in policies], axis=0)


def random_mdp(seed: int, states: int, actions: int, outcomes: int, ending: float = 0.2) -> TabularMDP:
    """A world without any structure."""
    rng = np.random.default_rng(seed)
    shape = (states, actions, outcomes)
    prob = rng.dirichlet(np.ones(outcomes), size=shape[:2])
    return TabularMDP(
        next_state=torch.from_numpy(rng.integers(0, states, shape, dtype=np.int32)),
        prob=torch.from_numpy(prob / prob.sum(-1, keepdims=True)),
        reward=torch.from_numpy(rng.normal(size=shape)),
        terminated=torch.from_numpy(rng.random(shape) < ending),
        start=torch.from_numpy(rng.dirichlet(np.ones(states))),
    )


def table(rows: list[list[tuple[int, float, bool]]], start: list[float]) -> TabularMDP:
    """A deterministic world written out: rows[s][a] = (next state, reward, terminated)."""

    def column(i: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([[[outcome[i]] for outcome in row] for row in rows], dtype=dtype)

    next_state = column(0, torch.int32)
    return TabularMDP(
        next_state=next_state,
        prob=torch.ones(next_state.shape, dtype=torch.float64),
        reward=column(1, torch.float64),
        terminated=column(2, torch.bool),
        start=torch.tensor(start, dtype=torch.float64),
    )
