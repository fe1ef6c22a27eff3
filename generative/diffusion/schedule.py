"""How noise takes over: x_t = alpha(t) x_0 + sigma(t) eps, for training timesteps t = 0 .. T-1.

Tables are float64 and all later coefficients are computed from them in float64. Timestep 0 already holds a little
noise; clean data is beyond it, at alpha = 1, sigma = 0.

Key: beta_t the variance added at step t; alpha_bar_t = prod (1 - beta) up to t; alpha = sqrt(alpha_bar),
sigma = sqrt(1 - alpha_bar) (Ho et al. 2020, eq. 4); lambda = ln(alpha / sigma), half the log of the
signal-to-noise ratio (Kingma et al. 2021; Lu et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """alpha and sigma at each training timestep."""

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


def from_betas(beta: Float64[Tensor, "T"]) -> NoiseSchedule:
    """The schedule whose step t adds variance beta_t (Ho et al. 2020, eq. 4)."""
    alpha_bar = torch.cumprod(1 - beta, dim=0)
    return NoiseSchedule(alpha_bar.sqrt(), (1 - alpha_bar).sqrt())


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


SCHEDULES: dict[str, Callable[[int], NoiseSchedule]] = {
    "linear": linear,
    "scaled-linear": scaled_linear,
    "cosine": cosine,
}
