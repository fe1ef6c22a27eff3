"""The moving average of a model's weights whose memory grows with the training: a constant share of it, at every step.

After t updates the weights of update i count in proportion to i^gamma: with every update

    average <- beta average + (1 - beta) weights,     beta = (1 - 1/t)^(gamma + 1)

(Karras et al. 2024, EDM2, sec. 3.1). So the first updates are forgotten in time without a warm-up, and one number suits
short and long runs. That number is the width sigma_rel: the standard deviation of i/t under these weights.

Departure: the paper's integral over continuous time is a sum over updates here, whose weights (i/t)^(gamma+1) -
((i-1)/t)^(gamma+1) are its integrals over each update: exactly what beta unrolls to.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

WIDEST = 0.28
"""The widest average; an equal share of all updates, gamma = 0, would be 1 / sqrt(12) = 0.289."""


def exponent(width: float) -> float:
    """gamma of the width sigma_rel = sqrt(gamma + 1) / ((gamma + 2) sqrt(gamma + 3)).

    That is the greatest root of gamma^3 + 7 gamma^2 + (16 - w) gamma + 12 - w with w = sigma_rel^-2 (Karras et al.
    2024, app. C).

    Raises:
        ValueError: when the width is not in (0, 0.28].
    """
    if not 0 < width <= WIDEST:
        raise ValueError(f"the moving average's width is {width}; expected more than 0 and at most {WIDEST}")
    w = width**-2
    return float(np.roots([1, 7, 16 - w, 12 - w]).real.max())


def decay(step: int, gamma: float) -> float:
    """beta at the update `step`, counted from 1; 0 at the first, which there is nothing to average with."""
    return (1 - 1 / step) ** (gamma + 1)


class Average:
    """A copy of a model that follows it; what it must remember besides is the number of updates.

    Args:
        model: what to follow.
        width: sigma_rel (see the file's head). Larger averages longer.

    Raises:
        ValueError: when the width is not in (0, 0.28].
    """

    def __init__(self, model: nn.Module, width: float) -> None:
        self.gamma = exponent(width)
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Take in the model's weights after its update `step`, counted from 1. Buffers are copied as they are."""
        share = 1 - decay(step, self.gamma)
        for slow, fast in zip(self.model.parameters(), model.parameters(), strict=True):
            if fast.requires_grad:  # a frozen weight is its own average
                slow.lerp_(fast, share)
        for kept, new in zip(self.model.buffers(), model.buffers(), strict=True):
            kept.copy_(new)
