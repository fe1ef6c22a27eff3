"""The denoiser of points and of small pictures: a residual perceptron that is told noise level and class.

    h = W x + b;    h <- h + W'' silu(W' norm(h) + V c) for each block;    output = W norm(h) + b
    c = silu(mlp(waves(t)) + class vector)

The blocks are those of Ho et al. 2020, appendix B, with matrices in place of convolutions; the last matrices of each
block and of the network start at zero. It knows nothing of which pixels are neighbours.

Key: B batch, P numbers of a sample, W width, E features of the condition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.embeddings import ClassEmbedding, TimestepMLP, entrance, timestep_waves
from backbones.masks import FULL
from backbones.shape import wrong


class Told(nn.Module):
    """One block: h + down(silu(up(norm(h)) + condition))."""

    def __init__(self, width: int, hidden: int, condition: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.condition = nn.Linear(condition, hidden)

    def initialise(self, generator: torch.Generator) -> None:
        self.down.weight.zero_()
        self.down.bias.zero_()

    def forward(self, h: Float[Tensor, "B W"], condition: Float[Tensor, "B E"]) -> Float[Tensor, "B W"]:
        return h + self.down(functional.silu(self.up(self.norm(h)) + self.condition(condition)))


class MLPDenoiser(nn.Module):
    """Noisy samples of any shape, their noise level and class -> as many of the same shape; called as a UNet is.

    Args:
        shape: of one sample; its numbers are the inputs.
        width: W, also E; even.
        blocks: residual blocks.
        classes: number of labels, or None for a network that is told none. Label `classes` is the null label.

    Raises:
        ValueError: for an odd width.
    """

    def __init__(self, shape: Sequence[int], width: int = 128, blocks: int = 3, classes: int | None = None) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"MLPDenoiser width={width}: sines and cosines are half of it each: expected an even one")
        self.arguments: dict[str, Any] = {"shape": list(shape), "width": width, "blocks": blocks, "classes": classes}
        self.shape, self.width, self.classes = tuple(shape), width, classes
        numbers = math.prod(shape)
        self.time_embedding = TimestepMLP(width, width)
        self.class_embedding = None if classes is None else ClassEmbedding(classes, width)
        self.input = nn.Linear(numbers, width)
        self.blocks = nn.ModuleList(Told(width, 2 * width, width) for _ in range(blocks))
        self.norm, self.output = nn.LayerNorm(width), nn.Linear(width, numbers)

    def initialise(self, generator: torch.Generator) -> None:
        self.output.weight.zero_()
        self.output.bias.zero_()

    def forward(
        self, x: Float[Tensor, "B *shape"], t: Float[Tensor, "B"], label: Int64[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B *shape"]:
        """The output for noisy samples `x` at timesteps `t` under `label` (null where not told).

        Raises:
            ShapeError: for samples of another shape than it was made for, or anything that is not one for each.
            ValueError: for a label that nobody reads.
        """
        if x.shape[1:] != self.shape:
            raise wrong("MLPDenoiser: x", x, f"[B, {', '.join(map(str, self.shape))}]")
        entrance("MLPDenoiser", x, t, label, None, FULL, told=None if self.classes is None else (), features=None)
        condition = self.time_embedding(timestep_waves(t, self.width).to(x.dtype))  # [B, E]
        if self.class_embedding is not None:
            null = torch.full_like(t, self.class_embedding.null, dtype=torch.int64)
            condition = condition + self.class_embedding(null if label is None else label)
        condition = functional.silu(condition)
        h = self.input(x.flatten(1))
        for block in self.blocks:
            h = block(h, condition)
        return self.output(self.norm(h)).view_as(x)
