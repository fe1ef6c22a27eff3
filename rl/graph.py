"""Who can come where: questions about a chain's edges that need no probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse  # type: ignore[import-untyped]  # scipy ships no types
from scipy.sparse import csgraph  # type: ignore[import-untyped]  # likewise

Flags = np.ndarray[Any, np.dtype[np.bool_]]


def reachable(P: Any, first: Flags) -> Flags:
    """States that some path from a state in `first` leads into, and those of `first` themselves. P: sparse [n, n]."""
    n = len(first)
    edges, begin = P.tocoo(), np.flatnonzero(first)
    rows = np.concatenate([edges.row, np.full(len(begin), n)])  # state n leads to all of `first`
    columns = np.concatenate([edges.col, begin])
    graph = sparse.csr_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(n + 1, n + 1))
    found = np.zeros(n + 1, np.bool_)
    found[csgraph.breadth_first_order(graph, n, directed=True, return_predecessors=False)] = True
    return found[:n]


def recurrent(P: Any, ends: Flags) -> Flags:
    """States that return for ever: those of a strongly connected component that nothing leaves.

    P: sparse [n, n]; `ends` [n]: the states in which the world may end.
    """
    count, label = csgraph.connected_components(P, directed=True, connection="strong")
    edges = P.tocoo()
    left = np.zeros(count, np.bool_)
    left[label[edges.row][label[edges.row] != label[edges.col]]] = True
    left[label[ends]] = True
    return ~left[label]
