"""Features for linear function approximation: value = w . x(s), with x fixed and w learned.

    Polynomial   x_i(s) = prod_j s_j^(c_ij),     c_ij in 0 ... n        Sutton & Barto 2018, eq. 9.17
    Fourier      x_i(s) = cos(pi s . c_i),       c_ij in 0 ... n        eq. 9.18; Konidaris et al. 2011
    TileCoding   x_i(s) = 1 where s lies in tile i, of several shifted grids of tiles, else 0        sec. 9.5.4

Key: k numbers describe a state, each in [0, 1]; n features describe it to the linear function, which is a
`nn.Linear(n, outputs, bias=False)`, since a constant is among the features or a sum of them.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from backbones.shape import wrong


def exponents(inputs: int, order: int) -> Int64[Tensor, "n k"]:
    """All c in {0 ... order}^k, the last number changing fastest: (order + 1)^k rows."""
    return torch.cartesian_prod(*[torch.arange(order + 1)] * inputs).view(-1, inputs)


class _Basis(nn.Module):
    """One feature for every row of c, which is a buffer: it moves with the module and is saved with it."""

    c: Tensor

    def __init__(self, inputs: int, order: int) -> None:
        super().__init__()
        self.register_buffer("c", exponents(inputs, order))
        self.inputs, self.outputs = inputs, (order + 1) ** inputs

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != self.inputs:
            raise wrong(f"{type(self).__name__}: x", x, f"[..., {self.inputs}]")


class Polynomial(_Basis):
    """[..., k] -> [..., (order + 1)^k]: all products of powers up to `order` of each number."""

    def forward(self, x: Float[Tensor, "*B k"]) -> Float[Tensor, "*B n"]:
        self._check(x)
        return (x[..., None, :] ** self.c).prod(-1)


class Fourier(_Basis):
    """[..., k] -> [..., (order + 1)^k]: all cosines of up to `order` half waves along each number."""

    def forward(self, x: Float[Tensor, "*B k"]) -> Float[Tensor, "*B n"]:
        self._check(x)
        waves = [x[..., j, None] * self.c[:, j].to(x.dtype) for j in range(self.inputs)]
        return torch.cos(math.pi * sum(waves[1:], waves[0]))  # no matmul: its rounding depends on the batch

    def rates(self) -> Float[Tensor, "n"]:
        """What to multiply each weight's step size with: 1 / |c_i|, and 1 for the constant (sec. 9.5.2)."""
        return 1 / self.c.double().norm(dim=1).where(self.c.any(1), 1)


class TileCoding(nn.Module):
    """[..., k] -> [..., n], of which one in each tiling is 1: the tile that s lies in.

    Each tiling is a grid of tiles of width 1/m. Tiling i is shifted against the first by i (1, 3, 5, ..., 2k-1) times
    1/m/tilings, modulo 1/m: odd displacements leave no diagonal along which generalisation is lopsided (Sutton & Barto,
    sec. 9.5.4, after Miller & Glanz 1996). A shifted grid needs one more tile a side, so there are (m + 1)^k a tiling.
    They are few enough for a table: nothing is hashed. A number outside of [0, 1] is taken for the nearer end.

    Args:
        inputs: k.
        tiles: m, along each number. More tell states apart more finely.
        tilings: how many. More are finer still, and generalise as widely; best a power of 2, and 4 k or more.

    Raises:
        ValueError: when tiles or tilings are below 1.
    """

    shift: Tensor
    stride: Tensor

    def __init__(self, inputs: int, tiles: int, tilings: int) -> None:
        super().__init__()
        if tiles < 1 or tilings < 1:
            raise ValueError(f"tile coding with {tiles} tiles and {tilings} tilings: expected 1 or more of each")
        self.inputs, self.tiles, self.tilings = inputs, tiles, tilings
        self.outputs = tilings * (tiles + 1) ** inputs
        odd = 2 * torch.arange(inputs) + 1
        self.register_buffer("shift", torch.arange(tilings)[:, None] * odd % tilings)  # [tilings, k], in 1/m/tilings
        self.register_buffer("stride", (tiles + 1) ** torch.arange(inputs))

    def indices(self, x: Float[Tensor, "*B k"]) -> Int64[Tensor, "*B tilings"]:
        """Which feature of each tiling is 1: the sparse form, `functional.embedding_bag(..., mode="sum")` reads it."""
        if x.shape[-1] != self.inputs:
            raise wrong("TileCoding: x", x, f"[..., {self.inputs}]")
        fine = (x.clamp(0, 1) * (self.tiles * self.tilings)).floor().long()  # in units of a shift
        tile = (fine[..., None, :] + self.shift) // self.tilings  # [..., tilings, k], in 0 ... m
        first = torch.arange(self.tilings, device=x.device) * (self.tiles + 1) ** self.inputs
        return (tile * self.stride).sum(-1) + first

    def forward(self, x: Float[Tensor, "*B k"]) -> Float[Tensor, "*B n"]:
        found = self.indices(x)
        return x.new_zeros(*x.shape[:-1], self.outputs).scatter_(-1, found, 1.0)
