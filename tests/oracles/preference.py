"""Exact answers for preferences and mazes, found another way.

closed_form      pi_ref exp(r / beta) / Z over an enumerable set (Rafailov et al. 2023, eq. 4)
GENERATORS       f of an f-divergence, f(1) = 0 (Wang et al. 2023, "Beyond reverse KL", table 1)
divergent_form   the policy that maximises E[r] - beta D_f(pi | reference), by its multiplier
dpo_gradient     -beta sigmoid(-beta h) on the chosen, its opposite on the rejected (ibid., sec. 4)
shortest_walk    scipy's shortest paths on the adjacency matrix of the floor
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.sparse import csgraph

Array = NDArray[np.float64]


def closed_form(reference: Array, reward: Array, beta: float) -> Array:
    """The policy [N] that maximises E[r] - beta KL(pi | reference), from its formula."""
    weight = reference * np.exp(reward / beta)
    return weight / weight.sum()


GENERATORS: dict[str, Callable[[float], Callable[[float], float]]] = {
    "reverse-kl": lambda a: lambda u: u * np.log(u),
    "forward-kl": lambda a: lambda u: -np.log(u),
    "js": lambda a: lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2),
    "alpha": lambda a: lambda u: (u ** (1 - a) - (1 - a) * u - a) / (a * (a - 1)),
}
"""f by the alpha of the alpha divergence, f of the ratio u = pi / reference: D_f = E_reference[f(u)]."""


def divergent_form(reference: Array, reward: Array, beta: float, divergence: str, alpha: float) -> Array:
    """The policy [N] that maximises E[r] - beta D_f(pi | reference).

    At the optimum beta f'(u) = r - m with one multiplier m for all; u is inverted by hand, and m found by bisection.
    """
    invert: dict[str, Callable[[Array], Array]] = {  # of f'
        "reverse-kl": lambda x: np.exp(x - 1),
        "forward-kl": lambda x: -1 / x,
        "js": lambda x: 1 / (2 * np.exp(-x) - 1),
        "alpha": lambda x: (1 - alpha * x) ** (-1 / alpha),
    }
    top = {"reverse-kl": np.inf, "forward-kl": 0.0, "js": np.log(2), "alpha": 1 / alpha}[divergence]  # f' is below it

    def policy(m: float) -> Array:
        return reference * invert[divergence]((reward - m) / beta)

    low = reward.max() - beta * top + 1e-9 if np.isfinite(top) else reward.min() - 50 * beta
    # at the upper end f' is below 0 everywhere, so that every u is below 1
    m = brentq(lambda m: policy(m).sum() - 1, low, reward.max() + 2 * beta, xtol=1e-14, rtol=1e-14)
    return policy(m)


def dpo_gradient(h: float, beta: float) -> tuple[float, float]:
    """d loss / d log pi(chosen) and / d log pi(rejected) of -log sigmoid(beta h)."""
    wrong = 1 / (1 + np.exp(beta * h))  # the probability that the implicit reward gives to the other order
    return -beta * wrong, beta * wrong


def shortest_walk(text: str) -> float:
    """Moves from S to G by scipy on the [cells, cells] adjacency matrix; inf where there is no way."""
    rows = text.split()
    width = len(rows[0])
    marks = "".join(rows)
    adjacency = np.zeros((len(marks), len(marks)))
    for i, mark in enumerate(marks):
        for j in (i + 1, i + width):
            joined = j < len(marks) and (j == i + width or j % width != 0)
            if joined and mark != "#" and marks[j] != "#":
                adjacency[i, j] = adjacency[j, i] = 1
    return float(csgraph.shortest_path(adjacency, unweighted=True)[marks.index("S"), marks.index("G")])


def walks_to_goal(text: str, moves: str) -> bool:
    """Whether the moves lead from S to G over floor, followed one by one on complex coordinates."""
    cells = {complex(c, r): mark for r, row in enumerate(text.split()) for c, mark in enumerate(row)}
    at = next(cell for cell, mark in cells.items() if mark == "S")
    for move in moves:
        at += {"U": -1j, "D": 1j, "L": -1, "R": 1}.get(move, 99)
        if cells.get(at, "#") == "#":
            return False
    return cells[at] == "G"
