"""How much each noise level counts in training.

Every weight is stated as w(alpha, sigma), the factor of the squared error *of x_0*, whatever the network says; with
x_0 = p x + q output the factor of the output's squared error is w q^2 (`on_output`). So one formula serves all
predictions. "uniform" is no function of the level: it is a weight of 1 on the output itself, and hence

    on the error of x_0:   eps SNR,   x0 1,   v SNR + 1 (Salimans & Ho 2022, sec. 4),   flow 1 / sigma^2,   edm `edm`

where alpha^2 + sigma^2 = 1 for v, and alpha + sigma = 1 for flow. Key: SNR = alpha^2 / sigma^2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from generative.diffusion.noise.denoiser import SIGMA_DATA, Prediction, inverse
from generative.diffusion.noise.schedule import Level

Weight = Literal["uniform", "min-snr", "p2", "edm"]


def min_snr(alpha: Float64[Tensor, "..."], sigma: Float64[Tensor, "..."], gamma: float = 5.0) -> Float64[Tensor, "..."]:
    """min(SNR, gamma): no level counts more than one of SNR gamma does (Hang et al. 2023, sec. 3.4).

    Nothing is learned where the data is gone altogether, at SNR 0: with zero terminal SNR that is one timestep in T.
    """
    return (alpha**2 / sigma**2).clamp(max=gamma)


def p2(
    alpha: Float64[Tensor, "..."], sigma: Float64[Tensor, "..."], k: float = 1.0, gamma: float = 1.0
) -> Float64[Tensor, "..."]:
    """SNR / (k + SNR)^gamma: less for levels of little noise, where only invisible detail is learned.

    Choi et al. 2022, eq. 8, where (k + SNR)^-gamma is the weight on eps.
    """
    snr = alpha**2 / sigma**2
    return snr / (k + snr) ** gamma


def edm(alpha: Float64[Tensor, "..."], sigma: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """lambda = (sigma^2 + data^2) / (sigma data)^2: the output of "edm" counts alike at all levels.

    Karras et al. 2022, tab. 1, with sigma / alpha for sigma.
    """
    return alpha**2 / sigma**2 + 1 / SIGMA_DATA**2


WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"min-snr": min_snr, "p2": p2, "edm": edm}
"""On the squared error of x_0."""


def on_output(weight: Weight, prediction: Prediction, level: Level) -> Float64[Tensor, "B"]:
    """The factor of the squared error of what the network says, at each sample's level."""
    if weight == "uniform":
        return torch.ones_like(level.alpha)
    _, q = inverse(prediction, level.alpha, level.sigma)
    return WEIGHTS[weight](level.alpha, level.sigma) * q**2
