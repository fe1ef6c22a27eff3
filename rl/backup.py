"""Bellman's backup of one world, laid out once and then applied to all states or to a few.

    q(s, a) = r(s, a) + gamma sum_k w(s, a, k) v(next)        w = prob [not terminated]

The sum is the product of a sparse matrix [S A, S] with v, K entries a row in the order of the tables. Each row is
summed by itself, from its first entry to its last, so its value depends neither on the number of threads nor on which
other rows are asked for: the backup of some states is, bit for bit, those rows of the backup of all.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise, repeat
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from scipy import sparse  # type: ignore[import-untyped]  # scipy ships no types
from torch import Tensor

from envs.mdp import TabularMDP

Floats = np.ndarray[Any, np.dtype[np.float64]]
States = np.ndarray[Any, np.dtype[np.int64]]
PART = 50_000  # entries of the matrix below which another thread costs more than it saves


class DPError(ValueError):
    """Values that do not exist, or were not reached in the sweeps allowed."""


class Backup:
    """The backup of `mdp` at discount `gamma`.

    Raises:
        DPError: for a gamma outside 0 ... 1.
    """

    def __init__(self, mdp: TabularMDP, gamma: float) -> None:
        if not 0 <= gamma <= 1:
            raise DPError(f"gamma is {gamma!r}, expected a number from 0 to 1")
        self.reward = mdp.expected_reward().numpy()  # [S, A]
        self.next = mdp.next_state.contiguous().numpy()  # [S, A, K]
        self.weight = (mdp.prob * gamma).mul_(~mdp.terminated).contiguous().numpy()  # [S, A, K], discounted
        parts = min(torch.get_num_threads(), 1 + self.next.size // PART)
        cuts = [mdp.states * i // parts for i in range(parts + 1)]
        self._parts = [slice(low, high) for low, high in pairwise(cuts)]
        self._threads = ThreadPoolExecutor(parts)

    def __call__(self, values: Float64[Tensor, "S"]) -> Float64[Tensor, "S A"]:
        """q(s, a) when the successors are worth `values`."""
        q = np.empty(self.reward.shape)
        self._each(self._fill, values.numpy(), q)
        return torch.from_numpy(q)

    def best(self, values: Floats) -> Floats:
        """max over a of q(s, a), [S]."""
        largest = np.empty(len(values))
        self._each(self._fill_best, values, largest)
        return largest

    def rows(self, states: States, values: Floats) -> Floats:
        """q(s, a) of these states only, [m, A]: the same numbers, bit for bit."""
        return _product(self.weight[states], self.next[states], values) + self.reward[states]

    def magnitude(self, states: States, values: Floats) -> Floats:
        """The size of the terms that max q is summed from, [m]: rounding errs by some 1e-16 of it."""
        best = self.rows(states, values).argmax(1)
        weight, reward = self.weight[states, best], self.reward[states, best]
        terms: Floats = (weight * np.abs(values[self.next[states, best]])).sum(-1) + np.abs(reward)
        return terms

    def predecessors(self, states: States) -> States:
        """Every state, once, with an outcome that leads to one of `states`."""
        first, last = self._leads.indptr[states].astype(np.int64), self._leads.indptr[states + 1].astype(np.int64)
        count = last - first
        where = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
        found = self._leads.indices[where] // self.reward.shape[1]  # the state of a pair
        place = np.arange(len(found))
        self._seen[found] = place  # of equal entries one stays
        return found[self._seen[found] == place].astype(np.int64)

    def causes(self) -> tuple[States, States, Floats]:
        """Which pairs s A + a may lead where, and with what weight: those of state s at begin[s] ... begin[s + 1].

        Returns:
            begin [S + 1], pair [n] and weight [n], each pair once for a state, and only where the weight is not 0.
        """
        found = _matrix(self.weight.copy(), self.next.copy(), len(self.reward)).tocsc()
        found.sum_duplicates()
        found.eliminate_zeros()
        return found.indptr.astype(np.int64), found.indices.astype(np.int64), found.data

    @cached_property
    def _leads(self) -> Any:
        """Column s of this matrix holds the pairs that may lead to state s."""
        return _matrix(np.ones(self.next.shape, np.int8), self.next, len(self.reward)).tocsc()

    @cached_property
    def _seen(self) -> States:
        return np.zeros(len(self.reward), np.int64)

    @cached_property
    def _matrices(self) -> list[Any]:
        return [_matrix(self.weight[part], self.next[part], len(self.reward)) for part in self._parts]

    def _each(self, fill: Callable[[int, Floats, Floats], None], values: Floats, out: Floats) -> None:
        """Fill all parts of `out`, each by a thread of its own (scipy's products let others run meanwhile)."""
        matrices = self._matrices  # made once, before the threads want them
        if len(matrices) == 1:
            fill(0, values, out)
        else:
            list(self._threads.map(fill, range(len(matrices)), repeat(values), repeat(out)))

    def _fill(self, i: int, values: Floats, q: Floats) -> None:
        """The i-th part of q [S, A]."""
        part = self._parts[i]
        np.add((self._matrices[i] @ values).reshape(-1, q.shape[1]), self.reward[part], out=q[part])

    def _fill_best(self, i: int, values: Floats, largest: Floats) -> None:
        """The i-th part of max q, [S]; a column at a time, as numpy is slow at the largest of a few."""
        part = self._parts[i]
        q = (self._matrices[i] @ values).reshape(-1, self.reward.shape[1])
        q += self.reward[part]
        of_part = largest[part]
        of_part[:] = q[:, 0]
        for a in range(1, q.shape[1]):
            np.maximum(of_part, q[:, a], out=of_part)


def _matrix(weight: Any, next_state: Any, columns: int) -> Any:
    """The matrix [m A, S] of weights and successors [m, A, K]; nothing is copied."""
    rows, entries = weight.shape[0] * weight.shape[1], weight.shape[2]
    ends = np.arange(0, rows * entries + 1, entries, dtype=np.int32 if weight.size < 2**31 else np.int64)
    return sparse.csr_matrix((weight.reshape(-1), next_state.reshape(-1), ends), shape=(rows, columns))


def _product(weight: Any, next_state: Any, values: Floats) -> Floats:
    """sum over k of weight v(next), [m, A]."""
    q: Floats = (_matrix(weight, next_state, len(values)) @ values).reshape(weight.shape[:2])
    return q
