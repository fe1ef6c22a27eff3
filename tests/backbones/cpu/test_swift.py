"""Networks whose layers are exchanged for faster ones say what they said."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from backbones.attention import Attention, attend
from backbones.cpu import attention, linear, winograd
from backbones.cpu.swift import swift
from backbones.dit import DiT
from backbones.unet import UNet
from backbones.unet_blocks import PixelAttention

MADE: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "unet of classes": (
        lambda: UNet(3, 3, width=32, multipliers=(1, 2), attention=(1,), classes=4),
        {"label": torch.tensor([1, 4])},
    ),
    "unet of prompts": (
        lambda: UNet(3, 3, width=32, multipliers=(1, 2), attention=(0, 1), context=24, head_width=16),
        {"context": torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))},
    ),
    "dit of prompts": (
        lambda: DiT(12, 3, 2, 64, 2, 2, context=24),
        {"context": torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(1))},
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_a_network_says_the_same_and_is_left_as_it_was(name: str) -> None:
    make, told = MADE[name]
    network, draws = make(), torch.Generator().manual_seed(0)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=draws) * 0.1
    x, t = torch.randn(2, 3, 12, 12, generator=draws), torch.tensor([3.0, 700.0])
    quick = swift(network)
    with torch.no_grad():
        expected, found = network(x, t, **told), quick(x, t, **told)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * expected.abs().max().item())
    assert not torch.equal(found, expected)  # which it would be, had nothing been exchanged
    assert all(weight.requires_grad for weight in network.parameters())
    for kind, fits in ((winograd.Winograd, winograd.fits), (linear.Linear, linear.fits)):
        made = sum(isinstance(module, kind) for module in quick.modules())
        own = sum(isinstance(module, linear.Pointwise) for module in quick.modules()) if kind is linear.Linear else 0
        assert made - own == sum(fits(module) for module in network.modules())
        assert not any(isinstance(module, kind) for module in network.modules())
    attends = [m for m in quick.modules() if isinstance(m, Attention | PixelAttention)]
    assert attends
    assert all(module.attend is attention.attend for module in attends)
    assert all(module.attend is attend for module in network.modules() if isinstance(module, Attention))
