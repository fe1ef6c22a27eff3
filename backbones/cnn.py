"""Convolutional networks that read pictures of a world: convolutions, then one hidden layer, then a linear output.

* `atari`: the deep Q-network, for 84 x 84 screens: 32 filters 8x8 stride 4, 64 filters 4x4 stride 2, 64 filters 3x3,
  512 units. Source: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015, Methods.
* `grid`: for a grid's planes of one cell a pixel: two layers of 3x3 filters that keep the size, 128 units.
  It is MinAtar's network (Young & Tian, arXiv:1903.03176, sec. 4: one layer of 16 such filters, 128 units) with
  a second layer, and padded, so that a cell at the rim is seen like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from backbones.mlp import MLP


@dataclass(frozen=True)
class Convolution:
    """One layer: `filters` of `size` x `size`, moved by `stride`, on a picture widened by `padding` zeros."""

    filters: int
    size: int
    stride: int = 1
    padding: int = 0


ATARI = (Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3))
GRID = (Convolution(32, 3, padding=1), Convolution(32, 3, padding=1))


class CNN(nn.Module):
    """Convolutions with ReLU, then an MLP on all that they saw.

    Args:
        shape: (channels, height, width) of a picture.
        convolutions: the layers, first to last.
        hidden: widths of the layers after them.
        outputs: numbers out, `[B, outputs]`.

    Raises:
        ValueError: where a picture is too small for the filters.
    """

    def __init__(
        self, shape: Sequence[int], convolutions: Sequence[Convolution], hidden: Sequence[int], outputs: int
    ) -> None:
        super().__init__()
        channels, height, width = shape
        layers: list[nn.Module] = []
        for c in convolutions:
            layers += [nn.Conv2d(channels, c.filters, c.size, c.stride, c.padding), nn.ReLU()]
            channels = c.filters
            height, width = ((side + 2 * c.padding - c.size) // c.stride + 1 for side in (height, width))
            if height < 1 or width < 1:
                raise ValueError(f"pictures of {tuple(shape)} are too small for {c}: {height} x {width} pixels left")
        self.convolutions = nn.Sequential(*layers)
        self.head = MLP(channels * height * width, hidden, outputs)

    def forward(self, x: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B o"]:
        """`[B, C, H, W]` -> `[B, outputs]`. Bytes (0 ... 255) are scaled to [0, 1]; floats are taken as they are."""
        x = x.float() / 255 if x.dtype == torch.uint8 else x
        return self.head(self.convolutions(x))


def atari(shape: Sequence[int], outputs: int) -> CNN:
    """The network of Mnih et al. 2015."""
    return CNN(shape, ATARI, [512], outputs)


def grid(shape: Sequence[int], outputs: int) -> CNN:
    """The small one for planes of a grid."""
    return CNN(shape, GRID, [128], outputs)
