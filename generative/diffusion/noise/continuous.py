"""Schedules without a table of timesteps: EDM, where noise is added to data that stays as it is, and rectified flow.

Key: as in `schedule`; u a quantile in (0, 1), Phi^-1 the inverse of the normal distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from generative.diffusion.noise.schedule import Level, Levels, Schedule
from generative.diffusion.noise.spacing import check_steps, known


@dataclass(frozen=True)
class EDM:
    """x = x_0 + sigma eps with ln sigma ~ N(mean, std^2); the network is told c_noise = ln(sigma) / 4.

    Karras et al. 2022, tab. 1 ("ours"); for predictions of any kind, "edm" being the one made for it (`denoiser`).
    """

    mean: float = -1.2
    """Of ln sigma in training. Larger trains on noisier images: for larger ones, whose neighbouring pixels agree."""
    std: float = 1.2
    """Of ln sigma in training."""
    smallest: float = 0.002
    """The last sigma that a solver asks the network at."""
    largest: float = 80.0
    """The sigma it starts at, far above that of the data."""
    rho: float = 7.0
    """Larger spends more of a solver's steps on little noise."""

    def draw(self, u: Float64[Tensor, "B"]) -> Level:
        logarithm = self.mean + self.std * torch.special.ndtri(u)
        return Level(torch.ones_like(u), logarithm.exp(), logarithm / 4)

    def levels(self, steps: int, spacing: str | None = None, begin: int = 0) -> Levels:
        """sigma^(1/rho) falls linearly from the largest to the smallest, then 0 (Karras et al. 2022, eq. 5)."""
        known("spacing", spacing or "karras", ["karras"])
        check_steps(steps, begin)
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        high, low = self.largest ** (1 / self.rho), self.smallest ** (1 / self.rho)
        sigmas = _then_clean((high + ramp * (low - high)) ** self.rho)[begin:]
        scale = sigmas[0].item()
        return Levels(sigmas[:-1].log() / 4, torch.ones_like(sigmas), sigmas, initial_scale=scale)


def uniform(u: Float64[Tensor, "B"]) -> Float64[Tensor, "B"]:
    """t = u: every level alike (Liu et al. 2023, rectified flow, eq. 1)."""
    return u


def logit_normal(u: Float64[Tensor, "B"], mean: float = 0.0, std: float = 1.0) -> Float64[Tensor, "B"]:
    """logit t ~ N(mean, std^2): more of the levels between, which are the hardest (Esser et al. 2024, eq. 19)."""
    return torch.sigmoid(mean + std * torch.special.ndtri(u))


@dataclass(frozen=True)
class Flow:
    """x = (1 - t) x_0 + t eps, t in (0, 1); the network is told 1000 t (Liu et al. 2023; Esser et al. 2024, eq. 13)."""

    quantile: Callable[[Float64[Tensor, "B"]], Float64[Tensor, "B"]] = uniform
    """How t is drawn in training: its quantile function."""
    shift: float = 1.0
    """t becomes shift t / (1 + (shift - 1) t), in training and in solving (Esser et al. 2024, eq. 23). Larger stays
    longer with much noise: for larger images."""

    def draw(self, u: Float64[Tensor, "B"]) -> Level:
        t = self._shifted(self.quantile(u))
        return Level(1 - t, t, 1000 * t)

    def levels(self, steps: int, spacing: str | None = None, begin: int = 0) -> Levels:
        """t falls in equal steps before the shift: "trailing" from 1 by 1/S, "linspace" from 1 to 1/1000.

        The latter is diffusers' own, which also shifts its 1/1000.
        """
        space = known("spacing", spacing or "trailing", ["trailing", "linspace"])
        check_steps(steps, begin)
        k = torch.arange(steps, dtype=torch.float64)
        if space == "trailing":
            t = 1 - k / steps
        else:
            last = self._shifted(torch.tensor(1e-3, dtype=torch.float64))
            t = 1 - k / max(steps - 1, 1) * (1 - last)
        t = _then_clean(self._shifted(t))[begin:]
        return Levels(1000 * t[:-1], 1 - t, t)

    def _shifted(self, t: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
        return self.shift * t / (1 + (self.shift - 1) * t)


def _then_clean(levels: Float64[Tensor, "S"]) -> Float64[Tensor, "S+1"]:
    return torch.cat([levels, levels.new_zeros(1)])


CONTINUOUS: dict[str, Callable[[], Schedule]] = {
    "edm": EDM,
    "flow": Flow,
    "flow-logit-normal": lambda: Flow(logit_normal),
}
