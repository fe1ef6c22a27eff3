"""From what a network says to an estimate of the clean data.

Whatever a network is trained to say of x = alpha x_0 + sigma eps is a mixture of data and noise,

    output = f x_0 + g eps

with f and g depending on the level alone (`MIXTURES`). Given x, that determines the data, by a map that is linear too,

    x_0 = p x + q output      p = g / det,  q = -sigma / det,  det = alpha g - sigma f

so everything after the network (clipping, guidance, solvers) speaks of x_0 alone. An error of the output is one of
x_0, times q: so weights of losses are converted (`weight`).

Sources: eps: Ho et al. 2020, eq. 15; v: Salimans & Ho 2022, appendix D; flow, the velocity eps - x_0: Esser et al.
2024, eq. 13; edm: Karras et al. 2022, eq. 7. Key: alpha, sigma as in `schedule`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from generative.diffusion.noise.schedule import Level

Prediction = Literal["eps", "x0", "v", "flow", "edm"]

SIGMA_DATA = 0.5
"""The standard deviation of the data that "edm" is conditioned for: that of images in [-1, 1] in Karras et al. 2022,
tab. 1. Data of another, such as latents, is to be scaled to it, as Karras et al. 2024 do."""

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(x [B, *shape], what is told of the level [B], label int64 [B] or None) -> output [B, *shape]."""


def edm_mixture(alpha: Tensor, sigma: Tensor, data: float = SIGMA_DATA) -> tuple[Tensor, Tensor]:
    """(f, g) of F = (x_0 - c_skip x) / c_out, which has variance 1 for data of standard deviation `data`.

    Karras et al. 2022, eq. 7 and tab. 1, for any alpha: with n^2 = alpha^2 data^2 + sigma^2 the variance of x,
    c_skip = alpha data^2 / n^2, c_out = sigma data / n, c_in = 1 / n.
    Where alpha^2 + sigma^2 = 1 and data = 1 it is -v.
    """
    n = (alpha**2 * data**2 + sigma**2).sqrt()
    return sigma / (n * data), -alpha * data / n


MIXTURES: dict[Prediction, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "eps": lambda alpha, sigma: (torch.zeros_like(alpha), torch.ones_like(sigma)),
    "x0": lambda alpha, sigma: (torch.ones_like(alpha), torch.zeros_like(sigma)),
    "v": lambda alpha, sigma: (-sigma, alpha),
    "flow": lambda alpha, sigma: (-torch.ones_like(alpha), torch.ones_like(sigma)),
    "edm": edm_mixture,
}


def x0_coefficients(
    prediction: Prediction, alpha: Float64[Tensor, "..."], sigma: Float64[Tensor, "..."]
) -> tuple[Float64[Tensor, "..."], Float64[Tensor, "..."]]:
    """(p, q) of x_0 = p x + q output, for each entry of alpha and sigma.

    Raises:
        ValueError: for eps where alpha is 0: noise alone determines no data.
    """
    if prediction == "eps" and (alpha == 0).any():
        raise ValueError(
            "prediction 'eps' determines no x0 where alpha is 0: train with 'v' or 'x0' on such a schedule"
        )
    return inverse(prediction, alpha, sigma)


def inverse(prediction: Prediction, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """`x0_coefficients` without a look at the numbers, which waits for the device: not finite where it raises."""
    f, g = MIXTURES[prediction](alpha, sigma)
    det = alpha * g - sigma * f
    return g / det, -sigma / det


def input_scale(
    prediction: Prediction, alpha: Float64[Tensor, "..."], sigma: Float64[Tensor, "..."]
) -> Float64[Tensor, "..."]:
    """What x is multiplied by before the network sees it: c_in for "edm", 1 for the others."""
    if prediction == "edm":
        return 1 / (alpha**2 * SIGMA_DATA**2 + sigma**2).sqrt()
    return torch.ones_like(alpha)


def target(
    prediction: Prediction,
    alpha: Float[Tensor, "#B *#shape"],
    sigma: Float[Tensor, "#B *#shape"],
    x0: Float[Tensor, "B *shape"],
    eps: Float[Tensor, "B *shape"],
) -> Float[Tensor, "B *shape"]:
    """What the network is to say of x = alpha x0 + sigma eps."""
    f, g = MIXTURES[prediction](alpha, sigma)
    return f * x0 + g * eps


@dataclass(frozen=True, eq=False)
class Denoiser:
    """(x, level, label) -> estimate of x_0, whatever the network was trained to say."""

    network: Network
    prediction: Prediction

    def __call__(
        self, x: Float[Tensor, "B *shape"], level: Level, label: Int64[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B *shape"]:
        """E[x_0 | x] as the network has it."""
        p, q = x0_coefficients(self.prediction, level.alpha, level.sigma)
        scale = input_scale(self.prediction, level.alpha, level.sigma)
        seen = column(scale, x) * x
        return column(p, x) * x + column(q, x) * self.network(seen, level.told.to(x.dtype), label)


def column(value: Float[Tensor, "B"], like: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *ones"]:
    """One number for each sample, in the type of `like` and of as many dimensions: [B, 1, ..., 1]."""
    return value.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
