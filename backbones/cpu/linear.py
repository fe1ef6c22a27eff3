"""A linear layer for many rows, on a CPU and without gradients: weights in panels, sums in registers (`kernels`)."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.cpu.kernels import PANEL, panels, product
from backbones.cpu.threads import shared

ROWS = 48
"""From which it pays. Fewer go torch's way."""


class Linear(nn.Module):
    """What `layer` does, for float32; its weights are held twice."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("bias", bias.clone())
        self.register_buffer("panels", panels(layer.weight.detach().T), persistent=False)

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        weight, bias = cast(Tensor, self.weight), cast(Tensor, self.bias)
        rows = x.numel() // x.shape[-1]
        if rows < ROWS or x.dtype != torch.float32:
            return functional.linear(x, weight, bias)
        flat, w = x.detach().reshape(rows, x.shape[-1]).contiguous().numpy(), cast(Tensor, self.panels).numpy()
        y = torch.empty(rows, self.out_features)
        shared(rows, lambda low, high: product(flat, w, bias.numpy(), y.numpy(), low, high), least=6)
        return y.view(*x.shape[:-1], self.out_features)


class Pointwise(nn.Module):
    """What a 1x1 convolution does: a linear layer on every pixel."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        layer = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None, device="meta")
        layer.weight = nn.Parameter(conv.weight.detach()[:, :, 0, 0])
        if conv.bias is not None:
            layer.bias = nn.Parameter(conv.bias.detach())
        self.layer = Linear(layer)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B O H W"]:
        return self.layer(x.movedim(1, -1)).movedim(-1, 1)


def fits(layer: nn.Module) -> bool:
    """Whether a layer is a linear one that `Linear` can stand for."""
    return type(layer) is nn.Linear and layer.out_features % PANEL == 0 and _here(layer.weight)


def fits_pixels(layer: nn.Module) -> bool:
    """Whether a layer is a 1x1 convolution that `Pointwise` can stand for."""
    return (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == layer.stride == (1, 1)
        and layer.padding == (0, 0)
        and layer.groups == 1
        and layer.out_channels % PANEL == 0
        and _here(layer.weight)
    )


def _here(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"
