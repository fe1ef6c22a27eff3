"""Truncated policy iteration: between two improvements the policy is evaluated by j sweeps, not to the end.

    pi = argmax_a q(v)                  improve: greedy for the values as they are
    v <- r_pi + gamma P_pi v            evaluate: j times, beginning at the values as they are

With j = 1 it is value iteration, as r_pi + gamma P_pi v = max_a q(v) for the greedy policy; as j grows, policy
iteration. An improvement computes S A backups, each of the other j - 1 sweeps S only.

Source: Zhao, Mathematical Foundations of Reinforcement Learning, 2025, sec. 4.3, alg. 4.3; Puterman & Shin, "Modified
policy iteration algorithms for discounted Markov decision problems", 1978 (their m is j - 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from envs.mdp import TabularMDP
from rl.backup import Backup, DPError, Floats
from rl.dp import Solution, solved
from rl.sweeps import EPS

SWEEPS = 5  # of evaluation: most of what policy iteration gains, at little more than value iteration costs a round


def truncated_policy_iteration(
    mdp: TabularMDP, gamma: float, sweeps: int = SWEEPS, tolerance: float = 1e-10, improvements: int = 100_000
) -> Solution:
    """The optimum, by improvements with `sweeps` sweeps of evaluation each.

    It ends when no value is further than `tolerance` from the optimum, or as near as rounding allows; and not before
    the best and the present value of each state agree to `tolerance` of themselves too, for at most S improvements
    more: a value far from every reward is small, and right only when its own digits are (see `rl.dp.value_iteration`).

    Below discount 1 it converges from any values (Puterman 1994, thm 6.5.5; Bertsekas, Dynamic Programming and Optimal
    Control II, 2012, prop. 2.5.1). At 1 it is only sure to where no reward is negative or every policy ends; evaluating
    a policy that never ends, j sweeps lead j costs away from the truth, from which improvements have to come back.
    Where free waiting holds it above or below the optimum, `rl.dp.solved` sees and mends it.

    Args:
        mdp: the world.
        gamma: the discount.
        sweeps: j. Larger: fewer improvements; more evaluation of policies that are soon given up.
        tolerance: of the values.
        improvements: after which it gives up.

    Raises:
        DPError: for a gamma outside 0 ... 1 or fewer than one sweep, or when `improvements` did not suffice; at gamma 1
            also where no policy has a finite value everywhere.
    """
    if sweeps < 1:
        raise DPError(f"sweeps is {sweeps}, expected at least 1 sweep of evaluation")
    backup = Backup(mdp, gamma)
    near, waited = False, 0
    for count, (v, best) in enumerate(islice(rounds(backup, sweeps), improvements + 1)):
        residual = np.abs(best - v)
        error = float(residual.max()) / (1 - gamma if gamma < 1 else 1)
        near = near or error <= tolerance or float(residual.max()) <= 2 * EPS * float(np.abs(v).max())
        waited += near
        if near and (waited > mdp.states or _settled(backup, v, residual, tolerance)):
            done = (count + 1) * backup.reward.size + count * (sweeps - 1) * mdp.states
            return solved(mdp, backup, gamma, torch.from_numpy(v), count, done)
    raise DPError(
        f"truncated policy iteration at gamma {gamma!r} with {sweeps} sweeps still changes by {residual.max():.3g} "
        f"after {improvements} improvements"
    )


def rounds(backup: Backup, sweeps: int) -> Iterator[tuple[Floats, Floats]]:
    """(v, max_a q(v)), each [S], from v = 0 on, after 0, 1, 2, ... improvements with `sweeps` sweeps each.

    Endless; improvements are those of the greedy policy, of equal actions the first.
    """
    state = np.arange(len(backup.reward))
    v = np.zeros(len(state))
    while True:
        q = backup(torch.from_numpy(v)).numpy()
        policy = q.argmax(1)
        best: Floats = q[state, policy]
        yield v, best
        v = best  # the first sweep: the greedy policy's backup is the best there is
        if sweeps > 1:
            reward, weight, after = (x[state, policy] for x in (backup.reward, backup.weight, backup.next))
            for _ in range(sweeps - 1):
                v = reward + (weight * v[after]).sum(-1)


def _settled(backup: Backup, v: Floats, residual: Floats, tolerance: float) -> bool:
    """No value is off by more than `tolerance` of itself, or of the rounding of what it is summed from."""
    moving = np.flatnonzero(residual > tolerance * np.abs(v))
    return not bool((residual[moving] > 4 * EPS * backup.magnitude(moving, v)).any())
