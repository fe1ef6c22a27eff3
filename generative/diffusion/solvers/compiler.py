"""From a solver's name to its table: what an engine asks for when a request names its solver.

The engine knows no noise schedule and no prediction; whoever makes it knows both, and gives it a compiler:

    ClosedForms(cosine(), "v")                  the solvers of `solver`
    Schedulers(diffusers_scheduler)             those of diffusers, for whatever it was made for (`schedulers`)
    AllSolvers(cosine(), "v")                   ours, and beside them those of diffusers
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from generative.diffusion.noise.denoiser import Prediction
from generative.diffusion.noise.schedule import Schedule
from generative.diffusion.solvers.schedulers import NAMES, Schedulers, scheduler_of, unknown
from generative.diffusion.solvers.solver import SOLVERS, compile_solver
from generative.diffusion.solvers.table import SolverTable


@dataclass(frozen=True, eq=False)
class ClosedForms:
    """Our own solvers, with "trailing" steps, for a network trained with this noise to say this."""

    schedule: Schedule
    prediction: Prediction

    def __call__(self, name: str, steps: int, begin: int, eta: float | None) -> SolverTable:
        return compile_solver(name, self.schedule, self.prediction, steps, begin=begin, eta=eta)


@dataclass(frozen=True, eq=False)
class AllSolvers:
    """Our own solvers, and under the other names of `schedulers.NAMES` those of diffusers."""

    schedule: Schedule
    prediction: Prediction

    def __call__(self, name: str, steps: int, begin: int, eta: float | None) -> SolverTable:
        if name in SOLVERS:
            return ClosedForms(self.schedule, self.prediction)(name, steps, begin, eta)
        if name not in NAMES:
            raise unknown(name, [*SOLVERS, *(other for other in NAMES if other not in SOLVERS)])
        return self.diffusers(name, steps, begin, eta)

    @cached_property
    def diffusers(self) -> Schedulers:
        """diffusers' solvers for the same noise and prediction; raises SolverError where it has none such."""
        return Schedulers(scheduler_of(self.schedule, self.prediction))
