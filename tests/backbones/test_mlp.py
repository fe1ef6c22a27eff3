"""The perceptron against its equations in numpy, alone and held R times."""

from functools import partial

import numpy as np
import pytest
import torch

from backbones.initialise import build
from backbones.mlp import MLP, Linear, ResidualMLP
from backbones.shape import ShapeError


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("norm", [False, True])
def test_forward_equals_the_equations(norm: bool) -> None:
    network = build(lambda: MLP(6, [5, 4], 3, activation=torch.tanh, norm=norm), generator(0)).double()
    x = torch.randn(7, 2, 3, generator=generator(1), dtype=torch.float64)
    h = x.numpy().reshape(7, 6)
    weights = {name: w.detach().numpy() for name, w in network.named_parameters()}
    for i in range(2):
        h = h @ weights[f"hidden.{i}.weight"].T + weights[f"hidden.{i}.bias"]
        if norm:
            h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
        h = np.tanh(h)
    np.testing.assert_allclose(network(x).detach().numpy(), h @ weights["output.weight"].T + weights["output.bias"])


def test_no_hidden_layer_is_a_linear_model() -> None:
    network = build(lambda: MLP(3, [], 2), generator(0))
    x = torch.randn(4, 3, generator=generator(1))
    zero = network(torch.zeros(1, 3))
    torch.testing.assert_close(network(2 * x) - zero, 2 * (network(x) - zero))


def test_weights_come_from_the_generator_alone() -> None:
    torch.rand(3)  # the global generator's state must not matter
    one, other = (build(lambda: MLP(4, [8], 2), generator(5)) for _ in range(2))
    third = build(lambda: MLP(4, [8], 2), generator(6))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not torch.equal(one.output.weight, third.output.weight)
    assert one.output.weight.abs().max() <= 8**-0.5  # uniform in +-1/sqrt(fan_in)


def test_residual_equals_the_equations() -> None:
    network = build(lambda: ResidualMLP(6, 4, 2, 3, activation=torch.tanh, expansion=2), generator(0)).double()
    with torch.no_grad():
        for w in network.parameters():  # nothing zero, nothing one
            w.normal_(generator=generator(w.numel()))
    weights = {name: w.detach().numpy() for name, w in network.named_parameters()}

    def affine(name: str, h: np.ndarray) -> np.ndarray:
        return h @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def normal(name: str, h: np.ndarray) -> np.ndarray:
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
        return h * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = torch.randn(7, 2, 3, generator=generator(1), dtype=torch.float64)
    h = affine("input", x.numpy().reshape(7, 6))
    for i in range(2):
        h = h + affine(f"blocks.{i}.down", np.tanh(affine(f"blocks.{i}.up", normal(f"blocks.{i}.norm", h))))
    np.testing.assert_allclose(network(x).detach().numpy(), affine("output", normal("norm", h)))


def test_residual_blocks_begin_as_the_identity_and_pass_the_gradient_on_however_many() -> None:
    few, many = (build(partial(ResidualMLP, 4, 16, blocks, 2), generator(0)) for blocks in (0, 50))
    many.output.load_state_dict(few.output.state_dict())
    many.input.load_state_dict(few.input.state_dict())
    x = torch.randn(8, 4, generator=generator(1))
    torch.testing.assert_close(many(x), few(x))
    for network in (few, many):
        network(x).square().sum().backward()
    torch.testing.assert_close(many.input.weight.grad, few.input.weight.grad)


def test_a_wrong_shape_is_named() -> None:
    for network in (MLP(6, [5], 3), ResidualMLP(6, 5, 1, 3)):
        with pytest.raises(ShapeError, match=r"\[7, 5\], expected \[B, \.\.\.\] with 6 numbers a sample"):
            network(torch.zeros(7, 5))


def test_a_sample_without_a_batch_is_named() -> None:
    for network in (MLP(4, [5], 3), ResidualMLP(4, 5, 1, 3)):
        with pytest.raises(ShapeError, match=r"x has shape \[4\], expected \[B, \.\.\.\] with 4 numbers a sample"):
            network(torch.zeros(4))


def test_r_layers_learn_under_autocast_as_one_by_one() -> None:
    """In bfloat16 their gradients are those of torch's own layer there: within a few of its 8 bits, in float32."""
    alone = [build(lambda: Linear(6, 5), generator(r)) for r in range(3)]
    together = Linear(6, 5)
    for name in ("weight", "bias"):
        setattr(together, name, torch.nn.Parameter(torch.stack([getattr(one, name).detach() for one in alone])))
    x = torch.randn(3, 7, 6, generator=generator(9), requires_grad=True)
    own = x.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = together(x)
        z = torch.stack([torch.nn.functional.linear(own[r], one.weight, one.bias) for r, one in enumerate(alone)])
    assert y.dtype == torch.bfloat16
    for said in (y, z):
        said.float().square().sum().backward()
    pairs = [(x.grad, own.grad)]
    pairs += [(getattr(together, n).grad, torch.stack([getattr(o, n).grad for o in alone])) for n in ("weight", "bias")]
    for ours, theirs in pairs:
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.03, atol=0.03 * float(theirs.abs().max()))
