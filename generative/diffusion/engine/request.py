"""What one can ask of the engine, and what its network is called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from generative.diffusion.solvers.table import SolverTable


class RequestError(ValueError):
    """A request that the engine cannot serve; the message names the field, its value and what is expected."""


@dataclass(frozen=True, eq=False)
class Request:
    """One sample to draw."""

    seed: int
    """All the randomness there is: the same seed, the same sample."""
    solver: str | SolverTable = "dpmpp-2m"
    """A name that the engine's compiler knows, or a table compiled otherwise (then `steps` is not read)."""
    steps: int = 25
    """Calls of the network from pure noise. More are slower and nearer to the exact solution."""
    guidance: float = 1.0
    """How far to go from the answer without label and condition towards the one with them; 1 is the latter, and half
    the work."""
    label: int | None = None
    """The class to draw; None draws without one."""
    clip: float | None = None
    """Bound on the absolute value of every estimate of the clean data; None for the solver's own, infinite for none."""
    eta: float | None = None
    """How much noise a named solver adds, where it lets one choose: 0 to 1. None for its own choice."""
    condition: Mapping[str, Tensor] | None = None
    """What else the network is told, by name; each as the engine's `null`, which None asks for."""
    init: Tensor | None = None
    """[*shape] A clean image to begin from: noised to the first level of the solver."""
    strength: float = 1.0
    """With `init`, the share of a named solver's steps that is run, as diffusers counts them: the first are left out,
    and more of the image stays. In (0, 1]."""
    mask: Tensor | None = None
    """Broadcastable to [*shape], in [0, 1]: 1 where to paint, 0 where to keep `init`. With strength 1 and a named
    solver the painting starts from pure noise, as in diffusers' inpainting."""
    noise: Tensor | None = None
    """[1 + draws, *shape] Noise instead of the seed's: for the first sample, unscaled, and for each row of the solver's
    table; for the first alone where the solver draws none. So another program's images can be had again."""
    against: Mapping[str, Tensor] | None = None
    """The conditions that guidance leads away from, by name (diffusers' `negative_prompt`); None for the engine's
    `null`. The label that it leads away from is the null label."""

    @property
    def rows(self) -> int:
        """Network rows it takes: two where it is guided."""
        return 1 if self.guidance == 1 else 2


@dataclass(frozen=True, eq=False)
class Inputs:
    """What a network is called with: (x [R, *shape], t [R], label int64 [R] or None, **conditions, each [R, ...])."""

    shape: tuple[int, ...]
    rows: int
    """R of every call."""
    classes: int | None = None
    """The number of labels; the label `classes` is the null label. None: the network is told no label."""
    null: Mapping[str, Tensor] = field(default_factory=dict)
    """The conditions of a request that asks for nothing, by name, of one row."""
    variance: bool = False
    """Whether it answers with [R, 2C, ...]: what others say, and the variance of DDPM's noise (see `learned`)."""
    estimate: bool = False
    """Whether x is [R, 2C, ...]: the sample, and beside it the last estimate of the clean data."""

    @property
    def seen(self) -> tuple[int, ...]:
        """Of one row of x."""
        return (2 * self.shape[0], *self.shape[1:]) if self.estimate else self.shape
