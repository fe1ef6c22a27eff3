"""A learned variance in the loop: the network says how much noise a step of DDPM is to add to each pixel.

What is learned, and by what, is said in `training.variance`; with f = (v + 1) / 2 of what the network says,

    ln variance = f ln beta + (1 - f) ln beta~       (Nichol & Dhariwal 2021, eq. 15)

A table's noise is that of beta~, so a pixel's is scaled by e^(f spread / 2), with spread = ln(beta / beta~). Other
solvers know nothing of a variance: what the network says of it is not read. Guidance moves the prediction alone; the
variance is what the network says with the label and the conditions, as in the code of DiT (Peebles & Xie 2023).

Key: s2 = sigma^2 - (alpha / alpha' sigma')^2, the variance added between two levels; beta = s2;
beta~ = s2 sigma'^2 / sigma^2.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from generative.diffusion.engine.request import RequestError
from generative.diffusion.solvers.table import SolverTable

NAME = "ddpm"
"""Of the solver that a learned variance is for."""


def smallest(table: SolverTable) -> SolverTable:
    """DDPM's table with noise of the smallest variance, beta~, whichever it came with.

    Raises:
        RequestError: where the table does not say at which levels it stands.
    """
    alpha, sigma, (alpha_next, sigma_next) = table.alpha, table.sigma, table.after
    s2 = sigma**2 - (alpha / alpha_next * sigma_next) ** 2
    noise = s2.clamp(min=0).sqrt() * sigma_next / sigma
    if not bool(noise.isfinite().all()):
        raise RequestError(f"solver is {NAME!r}; expected a table that says its levels, for a learned variance")
    C = torch.zeros_like(table.C)
    C[:, 0] = noise
    return replace(table, C=C)


def spread(table: SolverTable) -> Float[Tensor, "S"]:
    """ln(beta / beta~) of each row: 2 ln(sigma / sigma'). 0 onto clean data, where there is no noise to scale."""
    sigma, after = table.sigma, table.after[1]
    return torch.where(after > 0, 2 * (sigma / after).log(), 0).nan_to_num(0, 0, 0)


def factor(v: Float[Tensor, "R P"], spread: Float[Tensor, "R"]) -> Float[Tensor, "R P"]:
    """What each pixel's noise is multiplied by; 1 where the spread is 0, whatever the network says."""
    half = (v + 1) / 4 * spread[:, None]
    return torch.where(spread[:, None] == 0, 0, half).exp()
