"""How noise takes over: x = alpha x_0 + sigma eps, at the levels that a network was trained on.

A `Schedule` says two things, and training and solvers ask nothing else: which level a uniform draw stands for (`draw`),
and where a solver stops (`levels`). The schedules here are tables of T training timesteps t = 0 .. T-1;
`continuous` has those that are not. All is float64. Timestep 0 already holds a little noise; clean data is beyond it,
at alpha = 1, sigma = 0.

Key: beta_t the variance added at step t; alpha_bar_t = prod (1 - beta) up to t; alpha = sqrt(alpha_bar),
sigma = sqrt(1 - alpha_bar) (Ho et al. 2020, eq. 4); lambda = ln(alpha / sigma), half the log of the
signal-to-noise ratio (Kingma et al. 2021; Lu et al. 2022); T training timesteps, S steps of a solver.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from generative.diffusion.noise.spacing import SPACINGS, check_steps, known


class Level(NamedTuple):
    """Where each of B noisy samples stands."""

    alpha: Float64[Tensor, "B"]
    """The share of the data."""
    sigma: Float64[Tensor, "B"]
    """The standard deviation of the noise."""
    told: Float64[Tensor, "B"]
    """What the network is told of it."""


@dataclass(frozen=True, eq=False)
class Levels:
    """The noise levels that a solver passes: S where it asks the network, and the one where it ends."""

    timesteps: Float64[Tensor, "S"]
    """What the network is told."""
    alphas: Float64[Tensor, "S+1"]
    sigmas: Float64[Tensor, "S+1"]
    initial_scale: float = 1.0
    """Standard deviation of the first sample."""

    @classmethod
    def through(cls, schedule: NoiseSchedule, timesteps: Int64[Tensor, "S"]) -> Levels:
        """From the first of the timesteps to the last, and on to clean data (alpha 1, sigma 0)."""
        one = torch.ones(1, dtype=torch.float64)
        alphas = torch.cat([schedule.alpha(timesteps), one])
        return cls(timesteps.double(), alphas, torch.cat([schedule.sigma(timesteps), one - 1]))

    def __len__(self) -> int:
        return len(self.timesteps)


@runtime_checkable
class Schedule(Protocol):
    """All that training and solvers know of noise."""

    def draw(self, u: Float64[Tensor, "B"]) -> Level:
        """The level at each quantile u in (0, 1) of the levels to be trained on, on the device of u."""
        ...

    def levels(self, steps: int, spacing: str | None = None, begin: int = 0) -> Levels:
        """Where a solver of so many steps stops, without the first `begin`; by default spaced as suits the schedule.

        Raises:
            SolverError: when there is no such spacing, or not so many steps.
        """
        ...


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A `Schedule` of T training timesteps: alpha and sigma at each. Training draws them uniformly."""

    alphas: Float64[Tensor, "T"]
    sigmas: Float64[Tensor, "T"]

    @property
    def steps(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alphas)

    def alpha(self, t: Int64[Tensor, "..."]) -> Float64[Tensor, "..."]:
        """The share of the data in x_t, on the device of `t`."""
        return self.alphas.to(t.device)[t]

    def sigma(self, t: Int64[Tensor, "..."]) -> Float64[Tensor, "..."]:
        """The standard deviation of the noise in x_t, on the device of `t`."""
        return self.sigmas.to(t.device)[t]

    def snr(self, t: Int64[Tensor, "..."]) -> Float64[Tensor, "..."]:
        """The signal-to-noise ratio alpha^2 / sigma^2 (Kingma et al. 2021, eq. 2)."""
        return (self.alpha(t) / self.sigma(t)) ** 2

    def half_log_snr(self, t: Int64[Tensor, "..."]) -> Float64[Tensor, "..."]:
        """lambda = ln(alpha / sigma) (Lu et al. 2022, sec. 2): the time in which solvers measure their steps."""
        return torch.log(self.alpha(t) / self.sigma(t))

    def at(self, t: Int64[Tensor, "B"]) -> Level:
        """The level of each timestep."""
        return Level(self.alpha(t), self.sigma(t), t.double())

    def draw(self, u: Float64[Tensor, "B"]) -> Level:
        return self.at((u * self.steps).long())

    def levels(self, steps: int, spacing: str | None = None, begin: int = 0) -> Levels:
        space = known("spacing", spacing or "trailing", SPACINGS)
        check_steps(steps, begin, self.steps - space.endswith("-open"))
        timesteps = torch.from_numpy(SPACINGS[space](self.steps, steps).copy())
        return Levels.through(self, timesteps[begin:])


def from_alpha_bar(alpha_bar: Float64[Tensor, "T"]) -> NoiseSchedule:
    """The schedule that keeps the share alpha_bar_t of the data's variance, and adds the rest as noise."""
    return NoiseSchedule(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


def from_betas(beta: Float64[Tensor, "T"]) -> NoiseSchedule:
    """The schedule whose step t adds variance beta_t (Ho et al. 2020, eq. 4)."""
    return from_alpha_bar(torch.cumprod(1 - beta, dim=0))


def linear(steps: int = 1000, start: float = 1e-4, end: float = 0.02) -> NoiseSchedule:
    """beta linear in t (Ho et al. 2020, sec. 4). `start` and `end` are meant for 1000 steps."""
    return from_betas(torch.linspace(start, end, steps, dtype=torch.float64))


def scaled_linear(steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> NoiseSchedule:
    """sqrt(beta) linear in t: latent diffusion's schedule (Rombach et al. 2022, their released configurations)."""
    return from_betas(torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2)


def cosine(steps: int = 1000, offset: float = 0.008, largest: float = 0.999) -> NoiseSchedule:
    """alpha_bar(u) = cos^2((u + s) / (1 + s) pi/2), beta cut at `largest` (Nichol & Dhariwal 2021, eq. 17).

    As published and as in diffusers, alpha_bar is not divided by its value at u = 0; only the betas' ratios enter.
    """
    u = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((u + offset) / (1 + offset) * (math.pi / 2)) ** 2
    return from_betas((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=largest))


def sigmoid(steps: int = 1000, start: float = -3.0, end: float = 3.0, least: float = 1e-9) -> NoiseSchedule:
    """alpha_bar(u) falls as the logistic curve from `start` to `end`, stretched to reach from 1 to 0, cut at `least`.

    Jabri et al. 2022 (RIN), with the temperature of 1 of Chen 2023 ("On the importance of noise scheduling",
    alg. 1). Both draw u continuously; the table takes u = 1/T .. 1. (diffusers' "sigmoid" is another: its *betas* are.)
    """
    u = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    curve, low, high = (torch.sigmoid(start + (end - start) * v) for v in (u, u.new_zeros(()), u.new_ones(())))
    return from_alpha_bar(((high - curve) / (high - low)).clamp(min=least))


def zero_terminal_snr(schedule: NoiseSchedule) -> NoiseSchedule:
    """The same schedule, its alpha shifted and stretched so that nothing is left of the data at T-1.

    Lin et al. 2024, alg. 1. A sampler that starts at pure noise then starts where training ended. Noise alone
    determines no data, so eps cannot be predicted on it.
    """
    first, last = schedule.alphas[0], schedule.alphas[-1]
    return from_alpha_bar(((schedule.alphas - last) * first / (first - last)) ** 2)


def linear_zero_snr(steps: int = 1000) -> NoiseSchedule:
    """`linear` with zero terminal SNR."""
    return zero_terminal_snr(linear(steps))


def scaled_linear_zero_snr(steps: int = 1000) -> NoiseSchedule:
    """`scaled_linear` with zero terminal SNR."""
    return zero_terminal_snr(scaled_linear(steps))


SCHEDULES: dict[str, Callable[[int], NoiseSchedule]] = {
    "linear": linear,
    "scaled-linear": scaled_linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "linear-zero-snr": linear_zero_snr,
    "scaled-linear-zero-snr": scaled_linear_zero_snr,
}
