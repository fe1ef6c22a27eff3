"""What one can ask of the engine, and why it may say no."""

from __future__ import annotations

import math
from dataclasses import dataclass

from generative.diffusion.table import SolverTable


class RequestError(ValueError):
    """A request that the engine cannot serve; the message names the field, its value and what is expected."""


@dataclass(frozen=True)
class Request:
    """One sample to draw."""

    seed: int
    """All the randomness there is: the same seed, the same sample."""
    solver: str | SolverTable = "dpmpp-2m"
    """A name in `solver.SOLVERS`, with "trailing" steps, or a table compiled otherwise (then `steps` is not read)."""
    steps: int = 25
    """Calls of the network. More are slower and nearer to the exact solution."""
    guidance: float = 1.0
    """How far to go from the answer without the label towards the one with it; 1 is the latter, and half the work."""
    label: int | None = None
    """The class to draw; None draws without one."""
    clip: float | None = None
    """Bound on the absolute value of every estimate of the clean data; None for no bound."""

    @property
    def rows(self) -> int:
        """Network rows it takes: two where it is guided."""
        return 1 if self.guidance == 1 else 2


def check(request: Request, rows: int, classes: int | None) -> None:
    """Raise RequestError unless an engine of so many rows and classes can serve the request."""
    if request.label is not None and not 0 <= request.label < (classes or 0):
        known = f"expected 0 to {classes - 1}" if classes else "the network knows no labels"
        raise RequestError(f"label is {request.label}; {known}")
    if not math.isfinite(request.guidance):
        raise RequestError(f"guidance is {request.guidance}; expected a finite number, 1 for none")
    if request.label is None and request.guidance != 1:
        raise RequestError(f"guidance is {request.guidance} but there is no label to guide towards; expected 1")
    if request.clip is not None and not request.clip > 0:
        raise RequestError(f"clip is {request.clip}; expected a positive bound, or None")
    if request.rows > rows:
        raise RequestError(f"guidance is {request.guidance} and takes 2 network rows; this engine has {rows}")
