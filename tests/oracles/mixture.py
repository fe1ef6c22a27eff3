"""Exact answers for a mixture of round Gaussians: x_0 ~ sum_k w_k N(mu_k, s^2 I), x = alpha x_0 + sigma eps.

Given the mode k, data and noise are jointly Gaussian; the modes of x follow by Bayes' rule. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Weights [K], means [K, d], one standard deviation."""

    weights: Tensor
    means: Tensor
    std: float

    def denoise(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | x], x [B, d]: the modes' own answers, weighed by how likely each mode is."""
        variance = alpha**2 * self.std**2 + sigma**2
        apart = x[:, None] - alpha * self.means  # [B, K, d]
        likely = torch.softmax(self.weights.log() - apart.square().sum(-1) / (2 * variance), dim=1)  # [B, K]
        own = self.means + alpha * self.std**2 / variance * apart  # [B, K, d]
        return (likely[:, :, None] * own).sum(1)

    def mode(self, x: Tensor) -> Tensor:
        """The nearest mean of each x [B, d]."""
        return torch.cdist(x, self.means).argmin(1)

    @property
    def mean(self) -> Tensor:
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        centred = self.means - self.mean
        return centred.T @ (self.weights[:, None] * centred) + self.std**2 * torch.eye(centred.shape[1]).double()
