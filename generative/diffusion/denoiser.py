"""From what a network says to an estimate of the clean data.

A network may be trained to say the noise eps, the data x_0, or the velocity v = alpha eps - sigma x_0. Given x_t,
each determines the others, by a map that is linear in x_t and in the output:

    x_0 = p x_t + q output

so everything after the network (clipping, guidance, solvers) speaks of x_0 alone.

Sources: eps: Ho et al. 2020, eq. 15; v: Salimans & Ho 2022, appendix D. Key: alpha, sigma as in `schedule`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from generative.diffusion.schedule import NoiseSchedule

Prediction = Literal["eps", "x0", "v"]


Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x [B, *shape], t [B] in training timesteps, label int64 [B] or None) -> output [B, *shape]."""


def x0_coefficients(
    prediction: Prediction, alpha: Float64[Tensor, "..."], sigma: Float64[Tensor, "..."]
) -> tuple[Float64[Tensor, "..."], Float64[Tensor, "..."]]:
    """(p, q) of x_0 = p x + q output, for each entry of alpha and sigma.

    Raises:
        ValueError: for eps where alpha is 0: noise alone determines no data.
    """
    if prediction == "x0":
        return torch.zeros_like(alpha), torch.ones_like(alpha)
    if prediction == "v":
        norm = alpha**2 + sigma**2  # 1 for the schedules of `schedule`
        return alpha / norm, -sigma / norm
    if (alpha == 0).any():
        raise ValueError(
            "prediction 'eps' determines no x0 where alpha is 0: train with 'v' or 'x0' on such a schedule"
        )
    return 1 / alpha, -sigma / alpha


def target(
    prediction: Prediction,
    alpha: Float[Tensor, "#B *#shape"],
    sigma: Float[Tensor, "#B *#shape"],
    x0: Float[Tensor, "B *shape"],
    eps: Float[Tensor, "B *shape"],
) -> Float[Tensor, "B *shape"]:
    """What the network is to say of x = alpha x0 + sigma eps."""
    if prediction == "x0":
        return x0
    return eps if prediction == "eps" else alpha * eps - sigma * x0


@dataclass(frozen=True, eq=False)
class Denoiser:
    """(x_t, t, label) -> estimate of x_0, whatever the network was trained to say."""

    network: Network
    schedule: NoiseSchedule
    prediction: Prediction

    def __call__(
        self, x: Float[Tensor, "B *shape"], t: Int64[Tensor, "B"], label: Int64[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B *shape"]:
        """E[x_0 | x_t] as the network has it; t counts training timesteps."""
        p, q = x0_coefficients(self.prediction, self.schedule.alpha(t), self.schedule.sigma(t))
        column = (-1, *[1] * (x.ndim - 1))  # [B, 1, ..., 1]
        return p.view(column).to(x.dtype) * x + q.view(column).to(x.dtype) * self.network(x, t.to(x.dtype), label)
