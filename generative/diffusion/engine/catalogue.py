"""The tables of the solvers that requests name, each compiled once for as long as it is asked for."""

from __future__ import annotations

import weakref

from generative.diffusion.engine.check import begin
from generative.diffusion.engine.learned import NAME, smallest
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.solvers.solver import SolverError
from generative.diffusion.solvers.table import Compiler, SolverTable

Name = tuple[str, int, int, float | None]
"""What a compiler is asked: solver, steps, how many of them to leave out, eta."""


class Catalogue:
    """Keeps the tables that were asked for last, `room` rows together, and finds any other that is still in use.

    So a table that a request on its way points to is never compiled a second time, and none is kept for ever.

    Args:
        compiler: makes a table of a name.
        room: rows of the tables that are kept though nobody uses them.
        variance: whether the network says the variance of DDPM's noise (see `learned`).
    """

    def __init__(self, compiler: Compiler, room: int, variance: bool) -> None:
        self.compiler, self.room, self.variance = compiler, room, variance
        self.kept: dict[Name, SolverTable] = {}  # that asked for longest ago comes first
        self.used = 0  # rows of the kept
        self.alive: weakref.WeakValueDictionary[Name, SolverTable] = weakref.WeakValueDictionary()

    def table(self, request: Request) -> SolverTable:
        """The request's table. Raises RequestError when its solver cannot be compiled so."""
        if isinstance(request.solver, SolverTable):
            return request.solver
        name = (request.solver, request.steps, begin(request), request.eta)
        table = self.alive.get(name)
        if table is None:
            table = self.alive[name] = self._compile(name)
        if self.kept.pop(name, None) is None:
            self.used += len(table)
        self.kept[name] = table
        while self.used > self.room:
            self.used -= len(self.kept.pop(next(iter(self.kept))))
        return table

    def _compile(self, name: Name) -> SolverTable:
        try:
            table = self.compiler(*name)
        except SolverError as error:
            raise RequestError(str(error)) from None
        return smallest(table) if self.variance and name[0] == NAME else table
