"""The perceptron of points, against the same sums written out; what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backbones.initialise import build
from backbones.mlp_denoiser import MLPDenoiser
from backbones.shape import ShapeError


def drawn(classes: int | None = 3) -> MLPDenoiser:
    draws = torch.Generator().manual_seed(0)
    made = build(lambda: MLPDenoiser((2, 1, 3), 8, 2, classes), draws).double()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=draws)
    return made


def by_hand(made: MLPDenoiser, x: Tensor, t: float, label: int) -> Tensor:
    w = {name: weight.detach() for name, weight in made.named_parameters()}

    def linear(name: str, v: Tensor) -> Tensor:
        return w[f"{name}.weight"] @ v + w[f"{name}.bias"]

    def norm(name: str, v: Tensor) -> Tensor:
        centred = v - v.mean()
        return centred / (centred.square().mean() + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    def silu(v: Tensor) -> Tensor:
        return v / (1 + (-v).exp())

    angles = [t * 10_000 ** (-i / 4) for i in range(4)]
    waves = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)], dtype=torch.float64)
    c = linear("time_embedding.linear_2", silu(linear("time_embedding.linear_1", waves)))
    c = silu(c + w["class_embedding.weight"][label])
    h = linear("input", x.flatten())
    for i in range(2):
        b = f"blocks.{i}"
        h = h + linear(f"{b}.down", silu(linear(f"{b}.up", norm(f"{b}.norm", h)) + linear(f"{b}.condition", c)))
    return linear("output", norm("norm", h)).view(2, 1, 3)


def test_it_is_the_sums_that_its_page_states() -> None:
    made = drawn()
    x = torch.randn(2, 2, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    out = made(x, torch.tensor([3.0, 40.0], dtype=torch.float64), torch.tensor([1, 3]))
    torch.testing.assert_close(out[0], by_hand(made, x[0], 3.0, 1), rtol=1e-5, atol=1e-6)  # waves are float32
    torch.testing.assert_close(out[1], by_hand(made, x[1], 40.0, 3), rtol=1e-5, atol=1e-6)
    untold = made(x, torch.tensor([3.0, 40.0], dtype=torch.float64))
    assert torch.equal(untold[1], out[1])
    assert not torch.equal(untold[0], out[0])


def test_it_starts_at_zero_and_refuses_what_it_was_not_made_for() -> None:
    fresh = build(lambda: MLPDenoiser((2, 1, 1), 8, 2), torch.Generator().manual_seed(0))
    assert torch.equal(fresh(torch.ones(3, 2, 1, 1), torch.zeros(3)), torch.zeros(3, 2, 1, 1))
    with pytest.raises(ShapeError, match="MLPDenoiser: x"):
        drawn()(torch.zeros(1, 1, 1, 3, dtype=torch.float64), torch.zeros(1))
    with pytest.raises(ValueError, match="label"):
        drawn(None)(torch.zeros(1, 2, 1, 3).double(), torch.zeros(1), torch.tensor([1]))
    with pytest.raises(ValueError, match="even"):
        MLPDenoiser((2,), 7)
