"""Two worlds of Sutton & Barto (2018) that are tables rather than maps: the gambler and the biased maximum."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from envs.layout import LOOKS, Layout
from envs.makers.made import Made
from envs.mdp import TabularMDP


def gambler(p: float, goal: int) -> Made:
    """A gambler stakes on coins until nothing or the goal is in hand (Sutton & Barto 2018, example 4.3).

    States are the capital, 0 ... goal; 0 and goal are terminal, an episode begins at any other with equal chance.
    Action a stakes a, 0 ... goal // 2; a stake beyond min(capital, goal - capital) is cut to that. Reaching the goal
    earns 1. Staking nothing changes nothing (the book leaves it in, too).

    Args:
        p: chance of winning a toss.
        goal: capital to reach, at least 2.
    """
    capital = np.arange(goal + 1)[:, None]
    stake = np.minimum(np.arange(goal // 2 + 1), np.minimum(capital, goal - capital))  # [S, A]
    after = np.stack([capital + stake, capital - stake], -1)  # [S, A, 2]: won, lost
    over = (capital == 0) | (capital == goal)
    start = np.full(goal + 1, 1 / (goal - 1))
    start[[0, goal]] = 0
    mdp = TabularMDP(
        next_state=torch.from_numpy(after.astype(np.int32)),
        prob=torch.tensor([p, 1 - p], dtype=torch.float64).expand(after.shape).contiguous(),
        reward=torch.from_numpy(1.0 * ((after == goal) & ~over[..., None])),
        terminated=torch.from_numpy((after == 0) | (after == goal)),
        start=torch.from_numpy(start),
    )
    looks = ["hole", *["floor"] * (goal - 1), "goal"]
    return Made(mdp, strip("H" + "." * (goal - 1) + "G", looks), tuple(f"stake {a}" for a in range(goal // 2 + 1)))


def maximization_bias(actions: int, mean: float, deviation: float) -> Made:
    """Two states where the maximum of noisy estimates misleads (Sutton & Barto 2018, example 6.7).

    On a strip of four cells, `end B A end`, an episode begins in A. There the even actions go left, to B, and the odd
    ones right, to the end; both earn 0. (The book's A has two actions, and B many: with as many in both, and an even
    number of them, a random action goes left as often as there.) Every action in B ends the episode with a reward of
    normal distribution, of which the table holds the 7-point Gauss-Hermite rule: equal moments up to the 13th.

    Args:
        actions: how many there are, at least 2.
        mean: of the reward in B.
        deviation: its standard deviation, at least 0.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    K, a = len(nodes), np.arange(actions)
    next_state = np.zeros((4, actions, K), np.int32)
    prob = np.zeros((4, actions, K))
    reward, terminated = np.zeros((4, actions, K)), np.ones((4, actions, K), np.bool_)
    prob[..., 0] = 1
    prob[1] = weights / weights.sum()
    reward[1] = mean + deviation * nodes
    next_state[2] = np.where(a % 2 == 0, 1, 3)[:, None]
    terminated[2] = (a % 2 == 1)[:, None]
    next_state[3] = 3
    mdp = TabularMDP(
        next_state=torch.from_numpy(next_state),
        prob=torch.from_numpy(prob),
        reward=torch.from_numpy(reward),
        terminated=torch.from_numpy(terminated),
        start=torch.tensor([0, 0, 1, 0], dtype=torch.float64),
    )
    names = tuple(f"{('left', 'right')[i % 2]} {i // 2 + 1}" if i > 1 else ("left", "right")[i] for i in range(actions))
    return Made(mdp, strip("HBAG", ["hole", "floor", "start", "goal"]), names)


def strip(glyphs: str, looks: list[str]) -> Layout:
    """A map of one row, each cell a state."""
    look: Int64[Tensor, "1 1 S"] = torch.tensor([[[LOOKS.index(name) for name in looks]]])
    cell = torch.stack([torch.zeros(len(looks), dtype=torch.int64), torch.arange(len(looks))], 1)
    return Layout(glyphs=(glyphs,), look=look, cell=cell, mode=torch.zeros(len(looks), dtype=torch.int64))
