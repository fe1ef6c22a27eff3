"""A solver is a table: every step of every solver is  h <- A h + B m + C z + D o.

h = (x, h1, ..., hH) is the sample and what the solver remembers; o the network's output; m the estimate of x_0, clipped
if the request asks for it; z standard normal noise. Row k of the table holds the numbers of step k, and before it the
timestep and the scale of the network's input, and how its output becomes the estimate:

    o = network(input_scale x, timestep);   m = clip(x0_from_x x + x0_from_output o)

The coefficients are computed once, in float64, by the functions in `solver` or by `probe` from a diffusers scheduler;
the loop that runs them (`engine`) knows nothing of solvers. D is zero but for a solver that clips the data and not the
direction, as diffusers' DDIM does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class SolverTable:
    """S steps of a solver with H registers of memory; compiled in float64, run in any floating type."""

    timesteps: Float[Tensor, "S"]
    """What the network is told, in training timesteps."""
    input_scale: Float[Tensor, "S"]
    x0_from_x: Float[Tensor, "S"]
    x0_from_output: Float[Tensor, "S"]
    A: Float[Tensor, "S h h"]
    B: Float[Tensor, "S h"]
    C: Float[Tensor, "S h"]
    D: Float[Tensor, "S h"]
    alpha: Float[Tensor, "S"]
    """What a clean image is multiplied by to stand before each row, and"""
    sigma: Float[Tensor, "S"]
    """the standard deviation of the noise that is added to it; nan where a solver does not say."""
    initial_scale: float = 1.0
    """Standard deviation of the first sample."""
    clip: float = torch.inf
    """Bound on |m| that the solver brings along; a request may ask for another."""
    estimate: bool = True
    """Whether m is an estimate of x_0, so that a bound on it means something; else it is the bare output."""

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def registers(self) -> int:
        """H, the tensors remembered beside the sample."""
        return self.A.shape[1] - 1

    @cached_property
    def stochastic(self) -> bool:
        """Whether any step takes noise."""
        return bool((self.C != 0).any())

    def rows(self, index: Int64[Tensor, "R"]) -> SolverTable:
        """The table of the rows at `index`: a gather, so that each sample of a batch may stand at its own."""
        return self._map(lambda tensor: tensor[index])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> SolverTable:
        """The same numbers elsewhere or in another precision."""
        return self._map(lambda tensor: tensor.to(device, dtype))

    @property
    def after(self) -> tuple[Float[Tensor, "S"], Float[Tensor, "S"]]:
        """(alpha, sigma) of the level that the sample stands at after each row: clean after the last."""
        one = torch.ones_like(self.alpha[:1])
        return torch.cat([self.alpha[1:], one]), torch.cat([self.sigma[1:], 0 * one])

    def padded(self, registers: int) -> SolverTable:
        """The same solver with at least `registers` registers; the added ones stay zero."""
        pad = max(0, registers - self.registers)
        wide: dict[str, Any] = {name: functional.pad(getattr(self, name), (0, pad)) for name in ("B", "C", "D")}
        return replace(self, A=functional.pad(self.A, (0, pad, 0, pad)), **wide)

    def _map(self, change: Callable[[Tensor], Tensor]) -> SolverTable:
        return replace(self, **{name: cast(Any, change(getattr(self, name))) for name in TENSORS})


Compiler = Callable[[str, int, int, float | None], SolverTable]
"""(name of a solver, steps, how many of them to leave out at the start, eta or None) -> its table."""

TENSORS = ("timesteps", "input_scale", "x0_from_x", "x0_from_output", "A", "B", "C", "D", "alpha", "sigma")


def concatenate(tables: Sequence[SolverTable]) -> SolverTable:
    """One table with the rows of all, in order. Their registers must agree; the initial scale is the first's."""
    rows: dict[str, Any] = {name: torch.cat([getattr(table, name) for table in tables]) for name in TENSORS}
    return replace(tables[0], **rows)


def idle(registers: int) -> SolverTable:
    """One row that leaves the state as it is."""
    zero, vector = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 1 + registers, dtype=torch.float64)
    A = torch.eye(1 + registers, dtype=torch.float64)[None]
    return SolverTable(zero, zero + 1, zero, zero, A, vector, vector, vector, zero, zero)


def step(
    rows: SolverTable,
    h: Float[Tensor, "R h P"],
    output: Float[Tensor, "R P"],
    z: Float[Tensor, "R P"] | None,
    clip: Float[Tensor, "R"],
) -> Float[Tensor, "R h P"]:
    """h <- A h + B m + C z + D o, each sample by its own row; `clip` bounds |m|, infinite for none.

    Products and sums are kept apart and in a fixed order: fused or blocked, they would round by position in the batch.
    """
    return moved(rows, h, estimate(rows, h, output, clip), output, z)


def estimate(
    rows: SolverTable, h: Float[Tensor, "R h P"], output: Float[Tensor, "R P"], clip: Float[Tensor, "R"]
) -> Float[Tensor, "R P"]:
    """m of `step`."""
    r = rows.x0_from_x[:, None] * h[:, 0] + rows.x0_from_output[:, None] * output  # [R, P]
    return torch.maximum(torch.minimum(r, clip[:, None]), -clip[:, None])


def moved(
    rows: SolverTable,
    h: Float[Tensor, "R h P"],
    m: Float[Tensor, "R P"],
    output: Float[Tensor, "R P"],
    z: Float[Tensor, "R P"] | None,
) -> Float[Tensor, "R h P"]:
    """What `step` makes of its estimate."""
    new = rows.B[:, :, None] * m[:, None] + rows.D[:, :, None] * output[:, None]  # [R, 1+H, P]
    for j in range(h.shape[1]):
        new = new + rows.A[:, :, j, None] * h[:, j, None]
    return new if z is None else new + rows.C[:, :, None] * z[:, None]
