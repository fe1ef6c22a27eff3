"""The solvers, each compiled into a `SolverTable` from its published formula, in float64.

A solver sees `Levels`: the noise levels it stops at, from pure noise to clean data. Where they stand (`SPACINGS`) and
how to go from one to the next (`SOLVERS`) are independent choices.

Key: alpha, sigma at the present level; alpha', sigma' at the next; a = alpha / alpha';
s2 = sigma^2 - a^2 sigma'^2 the variance added between the two; lambda = ln(alpha / sigma); m the estimate of x_0,
z noise, o the network's output, as in `table`; r the estimate before the clip.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from generative.diffusion.denoiser import Prediction, x0_coefficients
from generative.diffusion.schedule import NoiseSchedule
from generative.diffusion.table import SolverTable


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


@dataclass(frozen=True, eq=False)
class Levels:
    """The noise levels that a solver passes: S where it asks the network, and the one where it ends."""

    timesteps: Float64[Tensor, "S"]
    alphas: Float64[Tensor, "S+1"]
    sigmas: Float64[Tensor, "S+1"]

    @classmethod
    def through(cls, schedule: NoiseSchedule, timesteps: Int64[Tensor, "S"]) -> Levels:
        """From the first of the timesteps to the last, and on to clean data (alpha 1, sigma 0)."""
        one = torch.ones(1, dtype=torch.float64)
        alphas = torch.cat([schedule.alpha(timesteps), one])
        return cls(timesteps.double(), alphas, torch.cat([schedule.sigma(timesteps), one - 1]))

    def __len__(self) -> int:
        return len(self.timesteps)


def ddpm(levels: Levels, prediction: Prediction) -> SolverTable:
    """Ancestral sampling: the posterior q(x' | x, x_0) at the estimated x_0, with its own variance ("fixed small").

    Ho et al. 2020, eq. 6 and 7, for any two levels (Kingma et al. 2021, eq. 25-28):
    x' = a sigma'^2/sigma^2 x + alpha' s2/sigma^2 m + sqrt(s2 sigma'^2/sigma^2) z.
    """
    alpha, sigma, alpha_next, sigma_next = _pairs(levels)
    a = alpha / alpha_next
    s2 = sigma**2 - (a * sigma_next) ** 2
    noise = (s2.clamp(min=0) * (sigma_next / sigma) ** 2).sqrt()
    return _memoryless(levels, prediction, a * (sigma_next / sigma) ** 2, alpha_next * s2 / sigma**2, noise)


def ddim(levels: Levels, prediction: Prediction, eta: float = 0.0) -> SolverTable:
    """x' = alpha' m + sqrt(sigma'^2 - std^2) eps + std z, with eps = (x - alpha m) / sigma, the noise that m implies.

    Song et al. 2021 (DDIM), eq. 12 and 16: std = eta sqrt(s2 sigma'^2/sigma^2); eta = 1 is DDPM, 0 is deterministic.
    """
    alpha, _, alpha_next, _ = _pairs(levels)
    direction, std = _direction(levels, eta)
    return _memoryless(levels, prediction, direction, alpha_next - direction * alpha, std)


def ddim_unclipped_direction(levels: Levels, prediction: Prediction, eta: float = 0.0) -> SolverTable:
    """DDIM with eps = (x - alpha r) / sigma, from the estimate before the clip: diffusers' own, unless told otherwise.

    Equal to `ddim` without a clip; with one it is here for conformance only, since noise and data then belong to two
    different estimates. Of 300 digits drawn in 50 guided steps with clip 1 the judge recognised 82%, by `ddim` 100%.
    """
    alpha, _, alpha_next, _ = _pairs(levels)
    direction, std = _direction(levels, eta)
    return _memoryless(levels, prediction, direction, alpha_next, std, -direction * alpha)


def dpmpp_2m(levels: Levels, prediction: Prediction) -> SolverTable:
    """DPM-Solver++(2M), deterministic, second order; remembers the last estimate in h1.

    Lu et al. 2022 (DPM-Solver++), alg. 2: with the step's h = lambda' - lambda and r = h_before / h,
    x' = sigma'/sigma x - alpha' (e^-h - 1) [(1 + 1/2r) m - 1/2r h1];   h1' = m.
    First order (h1 left out) at the first step, at a last step that ends on clean data, where h is infinite, and, as
    the authors advise for few steps, at every last step of fewer than 15 (diffusers' `lower_order_final`).
    """
    alpha, sigma, alpha_next, sigma_next = _pairs(levels)
    lam = torch.log(levels.alphas / levels.sigmas)  # [S+1]; infinite at clean data
    h = lam[1:] - lam[:-1]
    half = torch.zeros_like(h)  # 1/2r
    half[1:] = 0.5 * h[1:] / h[:-1]
    if levels.sigmas[-1] == 0 or len(levels) < 15:
        half[-1] = 0
    gain = alpha_next - alpha * sigma_next / sigma  # -alpha' (e^-h - 1), finite also where h is not
    A = torch.zeros(len(levels), 2, 2, dtype=torch.float64)
    A[:, 0, 0], A[:, 0, 1] = sigma_next / sigma, -gain * half
    B = torch.stack([gain * (1 + half), torch.ones_like(gain)], dim=1)
    return _table(levels, prediction, A, B, torch.zeros_like(B))


SOLVERS: dict[str, Callable[[Levels, Prediction], SolverTable]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp-2m": dpmpp_2m,
}


def compile_solver(
    name: str,
    schedule: NoiseSchedule,
    prediction: Prediction,
    steps: int,
    spacing: str = "trailing",
    *,
    begin: int = 0,
    eta: float | None = None,
) -> SolverTable:
    """The table of the solver called `name` (see `SOLVERS`) over `steps` timesteps of the schedule.

    Args:
        name: of the solver.
        schedule: what the network was trained with.
        prediction: what it was trained to say.
        steps: calls of the network from pure noise.
        spacing: where they stand (see `SPACINGS`).
        begin: how many of them to leave out at the start, for an image that is noised to there.
        eta: how much noise ddim adds, 0 (by default) to 1; the others take none.

    Raises:
        SolverError: when there is no such solver or spacing, not that many timesteps, or no eta to give.
    """
    for kind, word, known in (("solver", name, list(SOLVERS)), ("spacing", spacing, list(SPACINGS))):
        if word not in known:
            near = get_close_matches(word, known, 1, 0.0)[0]
            raise SolverError(f"{kind} {word!r} is unknown; did you mean {near!r}? (known: {', '.join(known)})")
    most = schedule.steps - spacing.endswith("-open")
    if not 1 <= steps <= most:
        raise SolverError(f"steps is {steps}: the schedule has {schedule.steps} timesteps, so from 1 to {most} fit")
    if not 0 <= begin < steps:
        raise SolverError(f"begin is {begin}: of {steps} steps, 0 to {steps - 1} may be left out")
    timesteps = torch.from_numpy(SPACINGS[spacing](schedule.steps, steps).copy())[begin:]
    levels = Levels.through(schedule, timesteps)
    if eta is None:
        return SOLVERS[name](levels, prediction)
    if name != "ddim":
        raise SolverError(f"eta is {eta:g}: the solver {name!r} takes none (ddim does)")
    if not 0 <= eta <= 1:
        raise SolverError(f"eta is {eta:g}: expected 0 (no noise) to 1 (as much as ddpm)")
    return ddim(levels, prediction, eta)


def _pairs(levels: Levels) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """alpha, sigma, alpha', sigma' of every step, each [S]."""
    return levels.alphas[:-1], levels.sigmas[:-1], levels.alphas[1:], levels.sigmas[1:]


def _direction(levels: Levels, eta: float) -> tuple[Tensor, Tensor]:
    """DDIM's (sqrt(sigma'^2 - std^2) / sigma, std), each [S]."""
    alpha, sigma, alpha_next, sigma_next = _pairs(levels)
    s2 = sigma**2 - (alpha / alpha_next * sigma_next) ** 2
    std = eta * (s2.clamp(min=0) * (sigma_next / sigma) ** 2).sqrt()
    return (sigma_next**2 - std**2).clamp(min=0).sqrt() / sigma, std


def _memoryless(
    levels: Levels, prediction: Prediction, x: Tensor, m: Tensor, z: Tensor, r: Tensor | None = None
) -> SolverTable:
    """The table of a solver without registers from its four numbers a step, each [S]; r's goes to x and the output."""
    found = _table(levels, prediction, x[:, None, None], m[:, None], z[:, None])
    if r is None:
        return found
    A = found.A + (r * found.x0_from_x)[:, None, None]
    return replace(found, A=A, D=(r * found.x0_from_output)[:, None])


def _table(levels: Levels, prediction: Prediction, A: Tensor, B: Tensor, C: Tensor) -> SolverTable:
    p, q = x0_coefficients(prediction, levels.alphas[:-1], levels.sigmas[:-1])
    alpha, sigma, _, _ = _pairs(levels)
    return SolverTable(levels.timesteps, torch.ones_like(p), p, q, A, B, C, torch.zeros_like(B), alpha, sigma)
