"""A request on its way through the engine, and what a turn brings of those on their way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.solvers.table import SolverTable


@dataclass(eq=False)
class Ticket:
    """A request on its way: what the host knows of it, so that nothing has to be asked of the device."""

    request: Request
    table: SolverTable
    key: int
    """Of the request's noise."""
    levels: tuple[float, float]
    """(alpha, sigma) of the table's first row."""
    noisy: bool
    given: Mapping[str, Float[Tensor, "..."]] = field(default_factory=dict)
    """"init" and "mask" [P] and "noise" [draws, P] where the request brings them: copies on the device."""
    conditions: Mapping[str, Tensor] = field(default_factory=dict)
    """As the request has them: copies on the device; none for the null ones."""
    against: Mapping[str, Tensor] = field(default_factory=dict)
    """Likewise."""
    number: int = -1
    left: int = 0
    """Rows of the table still to go."""
    slots: tuple[int, ...] = ()

    @property
    def brings(self) -> bool:
        """Whether the noise of its steps is the request's own."""
        return self.noisy and "noise" in self.given


@dataclass(frozen=True, eq=False)
class Tick:
    """What one call of the network has brought. To read `finished` or `failed` is to wait for the device."""

    running: list[int]
    """The numbers of those that are on their way."""
    done: list[tuple[int, Tensor]]
    """(number of the request, sample [*shape]) of those that were in it for the last time, finite or not."""
    sound: list[Tensor]
    """Whether all of a sample is finite, for each of `done`."""

    @cached_property
    def finished(self) -> list[tuple[int, Tensor]]:
        """(number of the request, sample [*shape]) of those that are done."""
        return [pair for pair, sound in zip(self.done, self._sound, strict=True) if sound]

    @cached_property
    def failed(self) -> list[tuple[int, RequestError]]:
        """(number, reason) of those whose sample is not finite."""
        lost = [number for (number, _), sound in zip(self.done, self._sound, strict=True) if not sound]
        return [(n, RequestError(f"request {n}: sample is not finite; expected numbers: it overflowed")) for n in lost]

    @cached_property
    def _sound(self) -> list[bool]:
        return torch.stack(self.sound).tolist() if self.sound else []
