"""A linear layer for many rows, on a CPU and without gradients: weights in panels, sums in registers (`kernels`)."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from torch.nn import functional

from backbones.cpu.kernels import PANEL, gated, panels, product
from backbones.cpu.threads import shared
from backbones.feed_forward import GEGLU

ROWS = 48
"""From which it pays. Fewer go torch's way."""


class Linear(nn.Module):
    """What `layer` does, for float32; its weights are held twice."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        bias = torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach()
        self.register_buffer("weight", layer.weight.detach().clone(), persistent=False)
        self.register_buffer("bias", bias.clone(), persistent=False)
        self.register_buffer("panels", panels(layer.weight.detach().T), persistent=False)

    @property
    def parts(self) -> tuple[Float32[np.ndarray, "P K 32"], Float32[np.ndarray, "N"]]:
        """Panels and bias."""
        return cast(Tensor, self.panels).numpy(), cast(Tensor, self.bias).numpy()

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        weight, bias = cast(Tensor, self.weight), cast(Tensor, self.bias)
        rows = x.numel() // x.shape[-1]
        if rows < ROWS or x.dtype != torch.float32 or x.shape[-1] != self.in_features:  # which torch refuses
            return functional.linear(x, weight, bias)
        flat, (w, b) = x.detach().reshape(rows, x.shape[-1]).contiguous().numpy(), self.parts
        y = torch.empty(rows, self.out_features)
        shared(rows, lambda low, high: product(flat, w, b, y.numpy(), low, high), least=6)
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


class Gated(nn.Module):
    """What a GEGLU does, its hidden numbers never leaving the cache."""

    def __init__(self, network: GEGLU) -> None:
        super().__init__()
        self.gate, self.up, self.down = Linear(network.gate), Linear(network.up), Linear(network.down)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        rows = x.numel() // x.shape[-1]
        if rows < ROWS or x.dtype != torch.float32 or x.shape[-1] != self.gate.in_features:
            return self.down(functional.gelu(self.gate(x)) * self.up(x))
        flat, y = x.detach().reshape(rows, x.shape[-1]).contiguous().numpy(), torch.empty(rows, self.down.out_features)
        (wg, bg), (wu, bu), (wd, bd) = self.gate.parts, self.up.parts, self.down.parts
        shared(rows, lambda low, high: gated(flat, wg, bg, wu, bu, wd, bd, y.numpy(), low, high), least=6)
        return y.view(*x.shape[:-1], self.down.out_features)


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


def fits_gated(network: nn.Module) -> bool:
    """Whether a network is one that `Gated` can stand for."""
    return type(network) is GEGLU and all(fits(layer) for layer in (network.gate, network.up, network.down))


def _here(weight: Tensor) -> bool:
    return weight.dtype == torch.float32 and weight.device.type == "cpu"
