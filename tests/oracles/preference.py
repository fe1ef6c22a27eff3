"""Exact answers for preferences and mazes, found another way.

closed_form      pi_ref exp(r / beta) / Z over an enumerable set (Rafailov et al. 2023, eq. 4)
dpo_gradient     -beta sigmoid(-beta h) on the chosen, its opposite on the rejected (ibid., sec. 4)
shortest_walk    scipy's shortest paths on the adjacency matrix of the floor
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csgraph

Array = NDArray[np.float64]


def closed_form(reference: Array, reward: Array, beta: float) -> Array:
    """The policy [N] that maximises E[r] - beta KL(pi | reference), from its formula."""
    weight = reference * np.exp(reward / beta)
    return weight / weight.sum()


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
