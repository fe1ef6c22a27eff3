"""Mazes of any size: perfect ones from a seed, and the T of memory tasks."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse  # type: ignore[import-untyped]  # scipy ships no types
from scipy.sparse import csgraph  # type: ignore[import-untyped]  # likewise

from lab import streams


def perfect_maze(size: int, seed: int) -> tuple[str, ...]:
    """A maze of `size` x `size` rooms with exactly one way between any two: a spanning tree of the grid of rooms.

    Every wall between two rooms draws a number; the tree of smallest sum (Kruskal, "On the shortest spanning subtree
    of a graph", 1956) is broken through. Rooms lie on the odd rows and columns of the map.

    Args:
        size: rooms a side, at least 2.
        seed: of the stream ("maze", size); equal arguments draw equal mazes, on any machine.

    Returns:
        2 size + 1 rows of as many glyphs: S top left, G bottom right, walls around.
    """
    room = np.arange(size * size).reshape(size, size)
    here = np.concatenate([room[:, :-1].ravel(), room[:-1].ravel()])  # of each pair of neighbours the first ...
    there = np.concatenate([room[:, 1:].ravel(), room[1:].ravel()])  # ... and the second
    key = torch.tensor(streams.derive(seed, "maze", size))
    draw = streams.bits(key, torch.arange(len(here))).numpy()
    weight = np.empty(len(here))
    weight[np.argsort(draw, kind="stable")] = np.arange(1, len(here) + 1)  # ranks: no ties, and no 0, which is no edge
    graph = sparse.csr_array((weight, (here, there)), shape=(size * size, size * size))
    tree = csgraph.minimum_spanning_tree(graph).tocoo()
    a, b = (np.minimum(tree.row, tree.col), np.maximum(tree.row, tree.col))
    cells = np.full((2 * size + 1, 2 * size + 1), ord("#"), np.uint8)
    cells[1::2, 1::2] = ord(".")
    cells[a // size + b // size + 1, a % size + b % size + 1] = ord(".")  # the wall halfway between the rooms
    cells[1, 1], cells[-2, -2] = ord("S"), ord("G")
    return tuple(row.tobytes().decode() for row in cells)


def t_maze(length: int) -> tuple[str, ...]:
    """A corridor of `length` moves from S to the junction +, where n lies above and s below.

    Source: Bakker, "Reinforcement learning with long short-term memory" (NIPS 14, 2002).

    Returns:
        5 rows of length + 3 glyphs, with walls around.
    """
    end = "#" * (length + 1)
    return (end + "##", f"{end}n#", f"#S{'.' * (length - 1)}+#", f"{end}s#", end + "##")
