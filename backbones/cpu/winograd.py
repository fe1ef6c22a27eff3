"""3x3 convolutions with a quarter of the products, on a CPU and without gradients: Winograd's F(4x4, 3x3).

A tile of 6 x 6 pixels gives 4 x 4 of the output. With the transforms B, G, A below,

    y = A^T [ (G w G^T) * (B^T d B) ] A        36 products a tile and pair of channels, where 144 are counted directly

and over some tiles the 36 products are matrix products, [tiles, C] [C, O] each (`kernels`). The transforms run over
channels, which lie side by side (channels_last), in the processor's vectors; what is between the steps stays in cache.

A sum in another order, with weights up to 8: in float32 the result is off by some 4e-5 of its size, where the direct
way is off by 5e-6. It is as deterministic, and an image does not depend on the images beside it.

Source: Winograd 1980, "Arithmetic complexity of computations"; Lavin & Gray 2016, "Fast algorithms for convolutional
neural networks", sec. 4.3 (the points 0, 1, -1, 2, -2). Key: B images, C channels in, O out, T tiles.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from backbones.cpu.kernels import panels
from backbones.cpu.threads import shared
from backbones.cpu.vectors import at, compiled, tile62
from backbones.shape import wrong

G = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # in units of 1/24
LEAST = 32  # channels in and out from which it pays
CHUNK = 48  # tiles at a time; a multiple of 6


def transformed(weight: Float[Tensor, "O C 3 3"]) -> Float32[Tensor, "36 C O"]:
    """G w G^T of every pair of channels, worked out in float64."""
    g = torch.tensor(G, dtype=torch.float64, device=weight.device) / 24
    u = torch.einsum("ia,ocab,jb->ijco", g, weight.double(), g)
    return u.flatten(0, 1).float().contiguous()


class Winograd(nn.Module):
    """What `conv` does, for float32 on a CPU, without gradients and with a copy of its weights 4 times as large."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels = conv.in_channels, conv.out_channels
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach().float()
        self.register_buffer("weight", panels(transformed(conv.weight.detach())), persistent=False)  # [36, P, C, 32]
        self.register_buffer("bias", bias.clone(), persistent=False)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O H W"]:
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.dtype != torch.float32:
            raise wrong("Winograd: x", x, f"float32 [B, {self.in_channels}, H, W]")
        x = x.detach().contiguous(memory_format=torch.channels_last)
        B, _, H, W = x.shape
        pixels = x.permute(0, 2, 3, 1).numpy()
        y = torch.empty(B, H, W, self.out_channels)
        weight, bias = cast(Tensor, self.weight).numpy(), cast(Tensor, self.bias).numpy()
        shared(tiles(B, H, W), lambda low, high: _convolve(pixels, weight, bias, y.numpy(), low, high))
        return y.permute(0, 3, 1, 2)


def fits(layer: nn.Module) -> bool:
    """Whether a layer is a 3x3 convolution that `Winograd` can stand for, and gains from it."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (3, 3)
        and layer.stride == layer.dilation == layer.padding == (1, 1)
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and min(layer.in_channels, layer.out_channels) >= LEAST
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
    )


def tiles(B: int, H: int, W: int) -> int:
    """Of so many images."""
    return B * -(-H // 4) * -(-W // 4)


@compiled
def _enter(
    x: Float32[np.ndarray, "B H W C"],
    d: Float32[np.ndarray, "36 CHUNK C"],
    low: int,
    high: int,
    down: int,
    across: int,
) -> None:
    """B^T d B of the tiles from `low` to `high` in the first rows of `d`; beyond the edge of an image stand zeros."""
    H, W, C = x.shape[1:]
    tile, half = np.zeros((6, 6, C), np.float32), np.empty((6, 6, C), np.float32)
    two, four, five = np.float32(2), np.float32(4), np.float32(5)
    for t in range(low, high):
        b, top, left = t // (down * across), t // across % down * 4 - 1, t % across * 4 - 1
        for i in range(6):
            for j in range(6):
                if 0 <= top + i < H and 0 <= left + j < W:
                    for c in range(C):
                        tile[i, j, c] = x[b, top + i, left + j, c]
                else:
                    for c in range(C):
                        tile[i, j, c] = np.float32(0)
        for j in range(6):
            for c in range(C):
                a0, a1, a2 = tile[0, j, c], tile[1, j, c], tile[2, j, c]
                a3, a4, a5 = tile[3, j, c], tile[4, j, c], tile[5, j, c]
                p, q, r, s = a4 - four * a2, a3 - four * a1, a4 - a2, two * (a3 - a1)
                half[0, j, c] = four * a0 - five * a2 + a4
                half[1, j, c], half[2, j, c], half[3, j, c], half[4, j, c] = p + q, p - q, r + s, r - s
                half[5, j, c] = four * a1 - five * a3 + a5
        for i in range(6):
            for c in range(C):
                a0, a1, a2 = half[i, 0, c], half[i, 1, c], half[i, 2, c]
                a3, a4, a5 = half[i, 3, c], half[i, 4, c], half[i, 5, c]
                p, q, r, s = a4 - four * a2, a3 - four * a1, a4 - a2, two * (a3 - a1)
                k, n = 6 * i, t - low
                d[k, n, c] = four * a0 - five * a2 + a4
                d[k + 1, n, c], d[k + 2, n, c], d[k + 3, n, c], d[k + 4, n, c] = p + q, p - q, r + s, r - s
                d[k + 5, n, c] = four * a1 - five * a3 + a5


@compiled
def _leave(
    m: Float32[np.ndarray, "36 CHUNK N"],
    bias: Float32[np.ndarray, "O"],
    y: Float32[np.ndarray, "B H W O"],
    low: int,
    high: int,
    down: int,
    across: int,
) -> None:
    """A^T m A of the tiles from `low` to `high`, from the first rows of `m`, and the bias; none beyond the edge."""
    H, W, outs = y.shape[1:]
    half, whole = np.empty((4, 6, outs), np.float32), np.empty((4, 4, outs), np.float32)
    two, four, eight = np.float32(2), np.float32(4), np.float32(8)
    for t in range(low, high):
        b, top, left, n = t // (down * across), t // across % down * 4, t % across * 4, t - low
        for j in range(6):
            for o in range(outs):
                a0, a1, a2 = m[j, n, o], m[6 + j, n, o], m[12 + j, n, o]
                a3, a4, a5 = m[18 + j, n, o], m[24 + j, n, o], m[30 + j, n, o]
                p, q, r, s = a1 + a2, a1 - a2, a3 + a4, a3 - a4
                half[0, j, o], half[1, j, o] = a0 + p + r, q + two * s
                half[2, j, o], half[3, j, o] = p + four * r, q + eight * s + a5
        for i in range(4):
            for o in range(outs):
                a0, a1, a2 = half[i, 0, o], half[i, 1, o], half[i, 2, o]
                a3, a4, a5 = half[i, 3, o], half[i, 4, o], half[i, 5, o]
                p, q, r, s = a1 + a2, a1 - a2, a3 + a4, a3 - a4
                whole[i, 0, o], whole[i, 1, o] = a0 + p + r + bias[o], q + two * s + bias[o]
                whole[i, 2, o], whole[i, 3, o] = p + four * r + bias[o], q + eight * s + a5 + bias[o]
        for i in range(min(4, H - top)):
            for j in range(min(4, W - left)):
                for o in range(outs):
                    y[b, top + i, left + j, o] = whole[i, j, o]


@compiled
def _convolve(
    x: Float32[np.ndarray, "B H W C"],
    w: Float32[np.ndarray, "36 P C 32"],
    bias: Float32[np.ndarray, "O"],
    y: Float32[np.ndarray, "B H W O"],
    low: int,
    high: int,
) -> None:
    """The tiles from `low` to `high`, so many at a time that they stay in the cache between one step and the next."""
    H, W, C = x.shape[1:]
    P, down, across = w.shape[1], -(-H // 4), -(-W // 4)
    d, m = np.zeros((36, CHUNK, C), np.float32), np.empty((36, CHUNK, P * 32), np.float32)
    none = np.zeros(32, np.float32)
    for first in range(low, high, CHUNK):
        last = min(first + CHUNK, high)
        _enter(x, d, first, last, down, across)
        for k in range(36):
            for p in range(P):
                for t in range(0, last - first, 6):
                    from_, to = (k * CHUNK + t) * C, (k * CHUNK + t) * P * 32 + p * 32
                    tile62(at(d, from_), C, at(w, (k * P + p) * C * 32), 32, at(none, 0), at(m, to), P * 32, C)
        _leave(m, bias, y, first, last, down, across)
