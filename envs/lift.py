"""A Gymnasium environment that shows its dynamics becomes a table: FrozenLake, CliffWalking, Taxi and their like."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Float64

from envs.mdp import MDPError, TabularMDP

TABLES = (dict, list, tuple)  # what P and its rows may be


def shows_table(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether `env` has dynamics `P` to be lifted."""
    return isinstance(getattr(env.unwrapped, "P", None), TABLES)


def lift(env: gymnasium.Env[Any, Any]) -> TabularMDP:
    """The MDP of a Gymnasium environment that exposes its dynamics as `P[s][a] = [(prob, next, reward, terminated)]`.

    P and its rows are dictionaries by number, or lists. The start distribution is the environment's
    `initial_state_distrib`; without one, the single state that its resets return.

    Raises:
        MDPError: when there is no `P`, when it is malformed, or when the start distribution cannot be known.
    """
    bare: Any = env.unwrapped
    name = type(bare).__name__
    if not shows_table(env):
        raise MDPError(f"{name} has no table P, expected P[state][action] = [(prob, next_state, reward, terminated)]")
    if getattr(bare, "fickle_passenger", False):
        raise MDPError(
            f"{name} with a fickle passenger does more than its table P says, expected fickle_passenger=False"
        )
    pairs, S, A = _pairs(bare.P, name)
    count = np.array([len(outcomes) for outcomes in pairs])  # [S A]
    flat = np.array([tuple(outcome) for outcomes in pairs for outcome in outcomes], np.float64)  # [sum count, 4]
    k = np.arange(count.max())
    row = (count.cumsum() - count)[:, None] + np.minimum(k, count[:, None] - 1)  # [S A, K], repeating the last
    prob, following, reward, terminated = (flat[row, i].reshape(S, A, len(k)) for i in range(4))
    unsound = np.argwhere(~(np.abs(following) < 2**31) | (following != np.floor(following)))
    if len(unsound):
        s, a, _ = unsound[0]
        raise MDPError(
            f"{name}: P[{s}][{a}] leads to {float(following[tuple(unsound[0])])!r}, expected the number of a state"
        )
    return TabularMDP(
        next_state=torch.from_numpy(following.astype(np.int32)),
        prob=torch.from_numpy(np.where((k < count[:, None]).reshape(prob.shape), prob, 0.0)),
        reward=torch.from_numpy(reward),
        terminated=torch.from_numpy(terminated != 0),
        start=torch.from_numpy(_start(bare, S, name)),
    )


def _pairs(P: Any, name: str) -> tuple[list[Any], int, int]:
    """The outcomes of every pair, state by state, and S and A. Raises MDPError for a gap or a malformed outcome."""

    def at(table: Any, i: int) -> Any:
        known = i in table if isinstance(table, dict) else isinstance(table, list | tuple) and i < len(table)
        return table[i] if known else ()

    S, A = len(P), len(at(P, 0))
    if S == 0 or A == 0:
        raise MDPError(f"{name}: P has {S} states and {A} actions in the first, expected at least 1 of each")
    pairs = [at(at(P, s), a) for s in range(S) for a in range(A)]
    for i, outcomes in enumerate(pairs):
        s, a = divmod(i, A)
        if len(outcomes) == 0:
            raise MDPError(f"{name}: P[{s}][{a}] is missing or empty, expected {A} actions in each of {S} states")
        for outcome in outcomes:
            if len(outcome) != 4:
                raise MDPError(f"{name}: P[{s}][{a}] has {outcome!r}, expected (prob, next_state, reward, terminated)")
    return pairs, S, A


def _start(env: Any, states: int, name: str) -> Float64[np.ndarray, "S"]:
    given = getattr(env, "initial_state_distrib", None)
    if given is not None:
        return np.array(given, np.float64).ravel()
    first = {env.reset(seed=seed)[0] for seed in range(16)}
    if len(first) > 1:
        shown = sorted(int(state) for state in first)
        raise MDPError(f"{name} starts in states {shown} but has no initial_state_distrib to say how often")
    start = np.zeros(states)
    start[int(first.pop())] = 1.0
    return start
