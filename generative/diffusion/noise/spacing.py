"""Where a solver stops on its way from noise to data, by name, and what is said when that cannot be.

On T training timesteps a spacing is a function (T, steps) -> the timesteps, the noisiest first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches

import numpy as np


class SolverError(ValueError):
    """A solver, spacing or number of steps that there is not."""


def trailing(train_steps: int, steps: int) -> np.ndarray:
    """T-1 and down by T/S: starts at pure noise (Lin et al. 2024, tab. 2). The default: right at few steps too."""
    return (train_steps - np.arange(steps) * (train_steps / steps)).round().astype(np.int64) - 1


def leading(train_steps: int, steps: int) -> np.ndarray:
    """Multiples of T//S down to 0, as DDPM and DDIM had it; misses the noisiest levels (Lin et al. 2024, sec. 3.3)."""
    return (np.arange(steps) * (train_steps // steps))[::-1].astype(np.int64)


def linspace(train_steps: int, steps: int) -> np.ndarray:
    """T-1 down to 0, both included (Nichol & Dhariwal 2021)."""
    return np.linspace(0, train_steps - 1, steps).round()[::-1].astype(np.int64)


def leading_open(train_steps: int, steps: int) -> np.ndarray:
    """`leading` without timestep 0, as diffusers' DPM-Solvers mean the word."""
    return leading(train_steps, steps + 1)[:-1]


def linspace_open(train_steps: int, steps: int) -> np.ndarray:
    """`linspace` without timestep 0, as diffusers' DPM-Solvers mean the word."""
    return linspace(train_steps, steps + 1)[:-1]


SPACINGS: dict[str, Callable[[int, int], np.ndarray]] = {
    "trailing": trailing,
    "leading": leading,
    "linspace": linspace,
    "leading-open": leading_open,
    "linspace-open": linspace_open,
}


def known(kind: str, word: str, words: Iterable[str]) -> str:
    """The word itself; raises SolverError with the nearest where it is not among `words`."""
    words = list(words)
    if word not in words:
        near = get_close_matches(word, words, 1, 0.0)[0]
        raise SolverError(f"{kind} {word!r} is unknown; did you mean {near!r}? (known: {', '.join(words)})")
    return word


def check_steps(steps: int, begin: int, most: int | None = None) -> None:
    """Raises SolverError unless there may be so many steps (at most `most`), the first `begin` left out."""
    if steps < 1:
        fits = "at least 1" if most is None else f"from 1 to {most}"
        raise SolverError(f"steps is {steps}; expected {fits}")
    if most is not None and steps > most:
        raise SolverError(f"steps is {steps}: the schedule's timesteps allow from 1 to {most}")
    if not 0 <= begin < steps:
        raise SolverError(f"begin is {begin}: of {steps} steps, 0 to {steps - 1} may be left out")
