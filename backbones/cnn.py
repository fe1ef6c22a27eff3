"""Convolutional networks that read pictures of a world: convolutions, then one hidden layer, then a linear output.

* `atari`: the deep Q-network, for 84 x 84 screens: 32 filters 8x8 stride 4, 64 filters 4x4 stride 2, 64 filters 3x3,
  512 units. Source: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015, Methods.
* `grid`: for a grid's planes of one cell a pixel: two layers of 3x3 filters that keep the size, 128 units.
  It is MinAtar's network (Young & Tian, arXiv:1903.03176, sec. 4: one layer of 16 such filters, 128 units) with
  a second layer, and padded, so that a cell at the rim is seen like any other.
* `impala`: the deep residual network for screens: three sections of a convolution, a pool that halves the picture and
  two residual blocks, with 16, 32 and 32 filters; 256 units. Source: Espeholt et al., "IMPALA", ICML 2018
  (arXiv:1802.01561), fig. 3, right, without its LSTM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from backbones.mlp import MLP
from backbones.shape import wrong


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
        norm: layer-normalise before every ReLU: over filters and places of a convolution (Ba et al. 2016), over the
            units of a hidden layer.

    Raises:
        ValueError: where a picture is too small for the filters.
    """

    def __init__(
        self,
        shape: Sequence[int],
        convolutions: Sequence[Convolution],
        hidden: Sequence[int],
        outputs: int,
        *,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        channels, height, width = self.shape
        layers: list[nn.Module] = []
        for c in convolutions:
            layers.append(nn.Conv2d(channels, c.filters, c.size, c.stride, c.padding))
            layers += [nn.GroupNorm(1, c.filters)] * norm + [nn.ReLU()]
            channels = c.filters
            height, width = ((side + 2 * c.padding - c.size) // c.stride + 1 for side in (height, width))
            if height < 1 or width < 1:
                raise ValueError(f"pictures of {tuple(shape)} are too small for {c}: {height} x {width} pixels left")
        self.convolutions = nn.Sequential(*layers)
        self.head = MLP(channels * height * width, hidden, outputs, norm=norm)

    def forward(self, x: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B o"]:
        """`[B, C, H, W]` -> `[B, outputs]`. Bytes (0 ... 255) are scaled to [0, 1], bools are 0 and 1.

        Raises:
            ShapeError: for pictures of another shape than it was made for.
            ValueError: for numbers of another type.
        """
        return self.head(self.convolutions(_scaled("CNN", x, self.shape, self.head.output.weight.dtype)))


class Residual(nn.Module):
    """x + conv(relu(conv(relu(x)))), both convolutions 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.conv2(torch.relu(self.conv1(torch.relu(x))))


class Impala(nn.Module):
    """Sections of a 3x3 convolution, a 3x3 maximum of stride 2 and two residual blocks, then an MLP.

    Args:
        shape: (channels, height, width) of a picture; each section halves it, rounded up, so any size will do.
        sections: filters of each section.
        hidden: widths of the layers after them.
        outputs: numbers out, `[B, outputs]`.
    """

    def __init__(self, shape: Sequence[int], sections: Sequence[int], hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.shape = tuple(shape)
        channels, height, width = self.shape
        layers: list[nn.Module] = []
        for filters in sections:
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
            layers += [Residual(filters), Residual(filters)]
            channels, height, width = filters, -(-height // 2), -(-width // 2)
        self.sections = nn.Sequential(*layers, nn.ReLU())
        self.head = MLP(channels * height * width, hidden, outputs)

    def forward(self, x: Shaped[Tensor, "B C H W"]) -> Float[Tensor, "B o"]:
        """`[B, C, H, W]` -> `[B, outputs]`. Bytes (0 ... 255) are scaled to [0, 1], bools are 0 and 1.

        Raises:
            ShapeError: for pictures of another shape than it was made for.
            ValueError: for numbers of another type.
        """
        return self.head(self.sections(_scaled("Impala", x, self.shape, self.head.output.weight.dtype)))


def atari(shape: Sequence[int], outputs: int) -> CNN:
    """The network of Mnih et al. 2015."""
    return CNN(shape, ATARI, [512], outputs)


def grid(shape: Sequence[int], outputs: int) -> CNN:
    """The small one for planes of a grid."""
    return CNN(shape, GRID, [128], outputs)


def impala(shape: Sequence[int], outputs: int) -> Impala:
    """The network of Espeholt et al. 2018."""
    return Impala(shape, [16, 32, 32], [256], outputs)


def _scaled(what: str, x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`x` as floats, of type `dtype` where it was none, once it has been seen to hold pictures of `shape`."""
    if x.ndim != 4 or tuple(x.shape[1:]) != shape:
        raise wrong(f"{what}: x", x, f"[B, {', '.join(map(str, shape))}]")
    if x.is_floating_point():
        return x
    if x.dtype not in (torch.uint8, torch.bool):
        raise ValueError(f"{what}: x holds {x.dtype}; expected floats, bytes (torch.uint8) or bools")
    return x.to(dtype) / 255 if x.dtype == torch.uint8 else x.to(dtype)
