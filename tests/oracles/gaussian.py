"""Exact answers for Gaussian data: x_0 ~ N(mu, Sigma), x_t = alpha x_0 + sigma eps.

Everything a denoiser or a sampler should find is then known in closed form:

* the denoiser E[x_0 | x_t], by conditioning one Gaussian on another;
* the probability-flow solution: in Sigma's eigenbasis each coordinate keeps its quantile, so it moves with the
  standard deviation of x_t (Song et al. 2021, "Score-based generative modeling", sec. 4.3);
* the posterior q(x_s | x_t, x_0) of two noise levels, by Bayes' rule on the joint Gaussian.

All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generative.diffusion.solvers.table import SolverTable


@dataclass(frozen=True)
class Gaussian:
    """N(mean [d], covariance [d, d])."""

    mean: Tensor
    covariance: Tensor

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x_0 | x] = mu + alpha Sigma (alpha^2 Sigma + sigma^2 I)^-1 (x - alpha mu); x [B, d], alpha, sigma [B]."""
        eye = torch.eye(len(self.mean), dtype=x.dtype)
        noisy = alpha[:, None, None] ** 2 * self.covariance + sigma[:, None, None] ** 2 * eye  # [B, d, d]
        surprise = torch.linalg.solve(noisy, x - alpha[:, None] * self.mean)  # [B, d]
        return self.mean + alpha[:, None] * surprise @ self.covariance

    def flow(self, x: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
        """The exact probability-flow solution: x [B, d] at (alpha, sigma) = start, carried to end."""
        (a, s), (b, r) = start, end
        values, vectors = torch.linalg.eigh(self.covariance)
        coordinates = (x - a * self.mean) @ vectors
        stretch = ((b**2 * values + r**2) / (a**2 * values + s**2)).sqrt()
        return b * self.mean + (coordinates * stretch) @ vectors.T


def posterior(alpha_t: float, sigma_t: float, alpha_s: float, sigma_s: float) -> tuple[float, float, float]:
    """(weight of x_t, weight of x_0, variance) of q(x_s | x_t, x_0), s the cleaner level, by Bayes' rule.

    Given x_0, (x_s, x_t) is jointly Gaussian: x_s = alpha_s x_0 + sigma_s e, x_t = (alpha_t/alpha_s) x_s + fresh noise.
    """
    a = alpha_t / alpha_s
    covariance = torch.tensor([[sigma_s**2, a * sigma_s**2], [a * sigma_s**2, sigma_t**2]], dtype=torch.float64)
    gain = (covariance[0, 1] / covariance[1, 1]).item()
    return gain, alpha_s - gain * alpha_t, (covariance[0, 0] - gain * covariance[0, 1]).item()


def moments(table: SolverTable, alphas: Tensor, sigmas: Tensor, data: Gaussian) -> tuple[Tensor, Tensor]:
    """Mean [d] and covariance [d, d] of what a solver draws with the exact denoiser from N(0, initial_scale^2 I).

    With Gaussian data every step is affine in the state h = (x, h1, ..) of (1+H) d numbers, so two moments tell all:
    no sampling, and no error but the solver's own. `alphas`, `sigmas` [S]: the levels at the table's rows.
    """
    d, width = len(data.mean), 1 + table.registers
    eye = torch.eye(d, dtype=torch.float64)
    mean = torch.zeros(width * d, dtype=torch.float64)
    covariance = torch.zeros(width * d, width * d, dtype=torch.float64)
    covariance[:d, :d] = table.initial_scale**2 * eye
    for k in range(len(table)):
        a, s = alphas[k], sigmas[k]
        gain = a * data.covariance @ torch.linalg.inv(a**2 * data.covariance + s**2 * eye)  # m = offset + gain x
        offset = data.mean - a * gain @ data.mean
        move = torch.kron(table.A[k], eye)
        move[:, :d] += torch.kron((table.B[k] + table.D[k])[:, None], gain)
        noise = torch.kron(table.C[k][:, None], eye)
        mean = move @ mean + torch.kron(table.B[k] + table.D[k], offset)
        covariance = move @ covariance @ move.T + noise @ noise.T
    return mean[:d], covariance[:d, :d]
