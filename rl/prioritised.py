"""Prioritised sweeping with the known model: the state whose value is most wrong is mended next.

    v(s) <- max_a q(s, a)                          for the s with the largest |max_a q(s, a) - v(s)|
    q(p, a) <- q(p, a) + w(p, a, s) change of v    for every pair that may lead to s: their states' new priorities

News of a reward travels backwards from where it is earned, and a state without news costs nothing.

Source: Moore & Atkeson, "Prioritized sweeping: reinforcement learning with less data and less time", 1993; Sutton &
Barto 2018, sec. 8.4. Departures, as the model is known: a state's priority is its Bellman error itself, not an upper
bound of it (Moore & Atkeson) or the error of one pair (Sutton & Barto), the queue begins with all states, not with
those experienced, and the state that is mended is the most wrong one to within a tenth (`WORSE`). It converges as
asynchronous value iteration does (Bertsekas, "Distributed dynamic programming", 1982).
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

import numpy as np
import torch

from envs.mdp import TabularMDP
from rl.backup import Backup, DPError
from rl.dp import Solution, solved
from rl.sweeps import EPS

MOST = 2_000_000  # values moved: a minute or two
FRESH = 10  # moves of a state, on average, before every q is computed afresh: corrections of a few units in the last
# place are rounded to whole ones, and would be handed on for ever undiminished
WORSE = 1.1  # a state is queued anew where its error exceeds its entry's by so much: entries then stay few


def prioritised_sweeping(mdp: TabularMDP, gamma: float, tolerance: float = 1e-10, most: int = MOST) -> Solution:
    """The optimum, one state at a time, the most wrong one first.

    It ends when no value is further than `tolerance` from the optimum and each agrees with its backup to `tolerance`
    of itself (a value far from every reward is small, and right only when its own digits are), or as near as rounding
    allows. At gamma 1 the first is no bound on the error, and all is as in `rl.dp.value_iteration`.

    Some 20,000 values are moved a second: for worlds of up to some 100,000 states in which few lead to each other.
    `iterations` of the solution counts the moves; `backups` counts the outcomes computed, in units of the mean number
    of outcomes of a pair, so that where every action has one it is the number of q(s, a) that were corrected.

    Args:
        mdp: the world.
        gamma: the discount.
        tolerance: of the values.
        most: values moved, after which it gives up.

    Raises:
        DPError: for a gamma outside 0 ... 1, or when `most` did not suffice. At gamma 1 that is a world whose optimum
            is infinite, or one where gains and costs alternate in a circle; there too where no policy has a finite
            value everywhere.
    """
    backup = Backup(mdp, gamma)
    state = np.arange(mdp.states)
    begin, pair, weight = backup.causes()  # of state s: the pairs at begin[s] ... begin[s + 1]
    bound = tolerance * (1 - gamma if gamma < 1 else 1)
    v, moved, outcomes = np.zeros(mdp.states), 0, 0
    while True:
        q = backup(torch.from_numpy(v)).numpy()
        best, flat = q.max(1), q.reshape(-1)
        outcomes += len(pair)
        rounding = 4 * EPS * backup.magnitude(state, v)
        error = np.abs(best - v)
        wrong = error > np.maximum(np.minimum(bound, tolerance * np.abs(best)), rounding)
        if not wrong.any():
            done = round(outcomes * backup.reward.size / max(1, len(pair)))
            return solved(mdp, backup, gamma, torch.from_numpy(v), moved, done)
        queue = list(zip((-error[wrong]).tolist(), state[wrong].tolist(), strict=True))
        heapify(queue)
        queued = np.where(wrong, error, 0.0)  # each state's live entry; any other of the state is older
        afresh = moved + FRESH * mdp.states
        while queue and moved < afresh:
            priority, s = heappop(queue)
            if -priority != queued[s]:
                continue
            queued[s], step = 0.0, best[s] - v[s]
            if abs(step) <= max(min(bound, tolerance * abs(best[s])), rounding[s]):
                continue
            if abs(step) < -priority and queue and abs(step) < -queue[0][0]:  # no longer the most wrong
                queued[s] = abs(step)
                heappush(queue, (-abs(step), s))
                continue
            if moved == most:
                raise DPError(
                    f"prioritised sweeping at gamma {gamma!r} still changes by {abs(step):.3g} after {moved} moves"
                )
            v[s] = best[s]
            moved += 1
            mended = slice(begin[s], begin[s + 1])
            flat[pair[mended]] += weight[mended] * step
            outcomes += begin[s + 1] - begin[s]
            touched = backup.predecessors(state[s : s + 1])
            best[touched] = q[touched].max(1)
            error = np.abs(best[touched] - v[touched])
            worse = error > WORSE * queued[touched]
            queued[touched[worse]] = error[worse]
            for e, p in zip(error[worse].tolist(), touched[worse].tolist(), strict=True):
                heappush(queue, (-e, p))
