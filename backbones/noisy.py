"""Noisy layers: weights that are drawn anew for every decision, with a spread that is learnt (exploration by itself).

    y = (mu_w + sigma_w * f(e_out) f(e_in)^T) x + mu_b + sigma_b * f(e_out),    f(e) = sign(e) sqrt|e|

The noise e = (e_in, e_out) is an argument: i + o standard normal numbers a layer (factorised), one row for each sample
or one for the batch. Zeros give the network without noise. The noisy weight is never written out: its product with x is
f(e_out) * (sigma_w (f(e_in) * x)), so that each sample may have noise of its own.

Source: Fortunato et al., "Noisy networks for exploration", ICLR 2018, eq. 9, 10, 11 and sec. 3.2 (first weights: mu
uniform in +-1/sqrt(i), sigma = sigma_0 / sqrt(i), sigma_0 = 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.mlp import LayerNorm, Linear
from backbones.shape import wrong


class NoisyLinear(nn.Module):
    """An affine map with factorised noise; like `backbones.mlp.Linear` its weights may be R at a time.

    Args:
        inputs, outputs: numbers in and out.
        sigma: sigma_0, the spread at first. More explores more.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5) -> None:
        super().__init__()
        self.sigma, self.noise = sigma, inputs + outputs
        self.inputs = inputs
        self.mean, self.spread = Linear(inputs, outputs), Linear(inputs, outputs)

    def initialise(self, generator: torch.Generator) -> None:
        for weight in (self.spread.weight, self.spread.bias):
            weight.fill_(self.sigma / math.sqrt(self.inputs))

    def forward(self, x: Float[Tensor, "... B i"], noise: Float[Tensor, "... b z"]) -> Float[Tensor, "... B o"]:
        """`x [B, i]` and noise `[B or 1, i + o]` -> `[B, o]`; held R times, each with a leading R."""
        if noise.shape[-1] != self.noise:
            raise wrong("NoisyLinear: noise", noise, f"{self.noise} numbers a row")
        scaled = noise.sign() * noise.abs().sqrt()
        into, out = scaled[..., : self.inputs], scaled[..., self.inputs :]
        return self.mean(x) + out * self.spread(into * x)


class Noisy(nn.Module):
    """A network, then noisy layers: h = relu(norm(body(x))); relu between the layers.

    Args:
        body: gives `widths[0]` numbers.
        widths: numbers between the layers; there are as many layers.
        outputs: numbers out.
        norm: layer-normalise what the body gives.
        sigma: of the layers.
    """

    def __init__(
        self, body: nn.Module, widths: Sequence[int], outputs: int, *, norm: bool = False, sigma: float = 0.5
    ) -> None:
        super().__init__()
        self.stacks = bool(getattr(body, "stacks", False))
        self.body = body
        self.norm = LayerNorm(widths[0]) if norm else nn.Identity()
        self.layers = nn.ModuleList(NoisyLinear(i, o, sigma) for i, o in pairwise([*widths, outputs]))
        self.sizes = [i + o for i, o in pairwise([*widths, outputs])]
        self.noise = sum(self.sizes)
        """Z, the numbers of noise that a row takes."""

    def forward(self, x: Float[Tensor, "B *shape"], noise: Float[Tensor, "... b z"]) -> Float[Tensor, "B *out"]:
        """`[B, *shape]` and noise `[B or 1, Z]` -> `[B, outputs]`; held R times, each with a leading R.

        Raises:
            ShapeError: for noise of another width.
        """
        if noise.shape[-1] != self.noise:
            raise wrong("Noisy: noise", noise, f"{self.noise} numbers a row")
        h = self.norm(self.body(x))
        for layer, own in zip(self.layers, noise.split_with_sizes(self.sizes, -1), strict=True):
            h = layer(torch.relu(h), own)
        return h
