"""How much a solver remembers, and the least registers that hold it.

A linear solver of S steps is known by its *forms*: row k holds sample x_k as a linear function of everything that came
in, x_0, the network's outputs o_0 ... and the noises z_0 ... What it has to remember before step k is then what its
future still needs of its past: the rows x_k, x_k+1, ... cut off at the columns of what had come in by then. They span
a space of 1 + H dimensions; x_k is one of them, and any basis of the rest will do for registers (Ho & Kalman 1966, for
systems that change with time: Shokoohi & Silverman 1987). Taken is the orthonormal one of the singular vectors, so that
every register is of the size of a noise and none is nearly another.

So nothing has to be known of a solver but its samples: Heun's half step, the outputs of Adams and Bashforth, the
Runge-Kutta start of PNDM and the old noise of SA-Solver are found, and no more registers are used than they need.

Key: S steps, I inputs, H registers; forms [S+1, I]; column 0 is x_0, 1 + k is o_k, 1 + S + k is z_k.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

AHEAD = 16  # future samples that are asked what they need; a memory shows within as many steps as it is large
# What of a sample need not be remembered: the first that will do.
TINY = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
AGREE = 1e-6  # of a sample, what a recurrence may miss: some schedulers compute in float32

Forms = Float64[np.ndarray, "rows I"]


@dataclass(frozen=True)
class Recurrence:
    """h <- A h + B o + C z  with h = (x, h1 ... hH), from h = (x_0, 0)."""

    A: Float64[np.ndarray, "S h h"]
    B: Float64[np.ndarray, "S h"]
    C: Float64[np.ndarray, "S h"]

    def forms(self, initial: float = 1.0) -> Forms:
        """Its samples as functions of all that comes in; x_0 is `initial` of column 0."""
        steps, width = self.B.shape
        h = np.zeros((width, 1 + 2 * steps))
        h[0, 0] = initial
        rows = [h[0]]
        for k in range(steps):
            h = self.A[k] @ h
            h[:, 1 + k] += self.B[k]
            h[:, 1 + steps + k] += self.C[k]
            rows.append(h[0])
        return np.stack(rows)


def recurrence(forms: Forms) -> Recurrence:
    """The recurrence of these forms with the fewest registers."""
    size = np.abs(forms).max(1, keepdims=True)
    for tiny in TINY:
        found = _recurrence(forms, tiny)
        if (np.abs(found.forms(forms[0, 0]) - forms) <= AGREE * size).all():
            break
    return found


def _recurrence(forms: Forms, tiny: float) -> Recurrence:
    steps = len(forms) - 1
    bases = [_basis(forms, k, tiny) for k in range(steps + 1)]
    width = max(len(basis) for basis in bases)
    A, B, C = np.zeros((steps, width, width)), np.zeros((steps, width)), np.zeros((steps, width))
    for k, (now, then) in enumerate(itertools.pairwise(bases)):
        before = _past(forms, k)
        A[k, : len(then), : len(now)] = np.linalg.lstsq(now[:, before].T, then[:, before].T, rcond=None)[0].T
        B[k, : len(then)] = then[:, 1 + k]
        C[k, : len(then)] = then[:, 1 + steps + k]
    return Recurrence(A, B, C)


def _basis(forms: Forms, k: int, tiny: float) -> Float64[np.ndarray, "h I"]:
    """x_k and what else of the past the steps from k on need, as forms."""
    future = forms[k : k + AHEAD].copy()
    size = np.abs(future).max(1, keepdims=True)
    future[:, ~_past(forms, k)] = 0
    future /= np.where(size > 0, size, 1)
    own = future[0] / max(np.linalg.norm(future[0]), np.finfo(float).tiny)
    _, large, rows = np.linalg.svd(future[1:] - np.outer(future[1:] @ own, own), full_matrices=False)
    return np.concatenate([forms[k : k + 1], rows[large > tiny]])


def _past(forms: Forms, k: int) -> np.ndarray:
    """Which inputs have come in before step k."""
    steps = len(forms) - 1
    past = np.zeros(forms.shape[1], dtype=bool)
    past[0] = True
    past[1 : 1 + k] = True
    past[1 + steps : 1 + steps + k] = True
    return past
