"""Blocks and their stack: written out step by step, modulated from nothing, over a context, and by a cache.

(Against torch's encoder and decoder layers: convert/test_pytorch.py; against diffusion Transformers: their own test.)
"""

from __future__ import annotations

import math
from typing import Literal

import jaxtyping
import pytest
import torch
from torch import nn

from backbones import feed_forward as networks
from backbones.attention import Attention
from backbones.feed_forward import ACTIVATIONS, GATED
from backbones.initialise import build
from backbones.masks import CAUSAL, FULL, padding, until
from backbones.positions import Positions, Rotary, Rotary2D
from backbones.shape import ShapeError
from backbones.stack import NORMS, Block, Modulation, Pass, Stack


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(
    depth: int = 2,
    order: Literal["pre", "post"] = "pre",
    context: int | None = None,
    condition: int | None = None,
    positions: Positions | None = None,
) -> Stack:
    def block() -> Block:
        return Block(
            Attention(12, 3),
            networks.make("swiglu", 12, bias=False),
            lambda: NORMS["layer"](12, 1e-5),
            order=order,
            cross=None if context is None else Attention(12, 3, context=context),
            modulation=None if condition is None else Modulation(condition, 12),
        )

    def stack() -> Stack:
        return Stack([block() for _ in range(depth)], positions or Positions(), nn.LayerNorm(12))

    made = build(stack, torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for seed, weight in enumerate(made.parameters()):
            if weight.ndim == 1 and condition is None:  # norms, which start at 1 and 0, and would hide a mistake
                weight += draw(*weight.shape, seed=seed)
    return made


@pytest.mark.parametrize("order", ["pre", "post"])
def test_a_block_is_its_equation(order: Literal["pre", "post"]):
    block, x, context = make(1, order, context=8).layers[0], draw(2, 5, 12), draw(2, 4, 8, seed=1)
    assert block.cross is not None
    assert block.cross_norm is not None
    memory, seen = block.cross.read(context), padding(torch.tensor([4, 2]), 4)
    a, c = lambda y: block.attention(y, CAUSAL), lambda y: block.cross.cross(y, memory, seen)
    f, steps = block.feed_forward, (block.attention_norm, block.cross_norm, block.feed_forward_norm)
    y = x
    for sublayer, norm in zip((a, c, f), steps, strict=True):
        y = y + sublayer(norm(y)) if order == "pre" else norm(y + sublayer(y))
    found = block(x, Pass(mask=CAUSAL, context_mask=seen), memory=memory)
    torch.testing.assert_close(found, y, rtol=0, atol=1e-12)


def test_a_modulated_stack_starts_as_its_norm_and_then_follows_peebles_and_xie():
    stack, x, condition = make(condition=6), draw(2, 5, 12), draw(2, 6, seed=1)
    places = torch.arange(5)[None]
    assert torch.equal(stack(x, places, condition=condition), stack.norm(x))
    for seed, block in enumerate(stack.layers):
        assert block.modulation is not None
        for weight in block.modulation.parameters():
            weight.data = draw(*weight.shape, seed=seed)
    y = x
    for block in stack.layers:
        assert block.modulation is not None
        linear = block.modulation.linear
        told = condition * condition.sigmoid() @ linear.weight.T + linear.bias  # [B, 6 D]
        for first, norm, sublayer in (
            (0, block.attention_norm, block.attention),
            (36, block.feed_forward_norm, block.feed_forward),
        ):
            shift, scale, gate = (told[:, None, first + 12 * i : first + 12 * (i + 1)] for i in range(3))
            y = y + gate * sublayer(norm(y) * (1 + scale) + shift)
    torch.testing.assert_close(stack(x, places, condition=condition), stack.norm(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [*ACTIVATIONS, *GATED])
@pytest.mark.parametrize("bias", [True, False])
def test_feed_forward_networks_are_their_equations(kind: str, bias: bool):
    network = build(lambda: networks.make(kind, 6, 10, bias=bias), torch.Generator().manual_seed(0)).double()
    x = draw(2, 3, 6)
    w = {name: weight.detach() for name, weight in network.named_parameters()}
    assert len(w) == (2 if kind in ACTIVATIONS else 3) * (1 + bias)

    def linear(name: str, y: torch.Tensor) -> torch.Tensor:
        return y @ w[f"{name}.weight"].T + (w[f"{name}.bias"] if bias else 0)

    phi = lambda y: y * (1 + torch.erf(y / math.sqrt(2))) / 2  # noqa: E731 - gelu, by the normal distribution
    forms = {
        "relu": lambda: linear("up", x).clamp(min=0),
        "relu2": lambda: linear("up", x).clamp(min=0) ** 2,
        "gelu": lambda: phi(linear("up", x)),
        "gelu-tanh": lambda: phi(linear("up", x)),
        "swiglu": lambda: linear("gate", x) / (1 + (-linear("gate", x)).exp()) * linear("up", x),
        "geglu": lambda: phi(linear("gate", x)) * linear("up", x),
    }
    near = 1e-3 if kind == "gelu-tanh" else 1e-12
    torch.testing.assert_close(network(x), linear("down", forms[kind]()), rtol=0, atol=near)
    if kind == "gelu-tanh":
        assert not torch.allclose(network(x), linear("down", forms[kind]()), rtol=0, atol=1e-9)


def test_a_gated_network_has_the_weights_of_a_plain_one():
    plain, gated = (
        sum(w.numel() for w in networks.make(kind, 48, bias=False).parameters()) for kind in ("relu", "swiglu")
    )
    assert gated == plain


def test_cached_steps_over_a_context_equal_the_whole():
    stack, x, context = make(context=8, positions=Rotary(4)), draw(2, 6, 12), draw(2, 4, 8, seed=1)
    seen, memory, places = padding(torch.tensor([4, 2]), 4), None, torch.arange(6).expand(2, 6)
    memory, cache = stack.remember(context), stack.cache(2, 6)
    whole = stack(x, places, CAUSAL, memory=memory, context_mask=seen)
    steps = [
        stack(x[:, i], at := places[:, i], until(at, 6), cache=cache, memory=memory, context_mask=seen)
        for i in ([0, 1, 2], [3], [4], [5])
    ]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=0, atol=1e-12)


def test_places_of_a_picture_may_come_in_any_order():
    """Full attention with positions of two axes is a function of the set of (place, content)."""
    stack, x = make(positions=Rotary2D(4)), draw(1, 6, 12)
    places = torch.tensor([[[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]])
    shuffled = [3, 0, 5, 1, 4, 2]
    found = stack(x[:, shuffled], places[:, shuffled], FULL)
    torch.testing.assert_close(found, stack(x, places, FULL)[:, shuffled], rtol=0, atol=1e-12)
    assert not torch.allclose(stack(x, places[:, shuffled], FULL), stack(x, places, FULL))


def test_weights_of_every_sublayer_start_by_the_stated_rule():
    def block() -> Block:
        return Block(
            Attention(160, 4), networks.make("relu", 160, bias=True), lambda: nn.LayerNorm(160), cross=Attention(160, 4)
        )

    stack = build(lambda: Stack([block() for _ in range(6)], Positions()), torch.Generator().manual_seed(0))
    base = math.sqrt(2 / (5 * 160))
    for name, weight in stack.named_parameters():
        if weight.ndim == 2:
            shrunk = name.endswith(("output.weight", "down.weight"))  # three sublayers in each of six blocks
            assert weight.std().item() == pytest.approx(base / (math.sqrt(18) if shrunk else 1), rel=0.03), name


def test_a_context_or_condition_that_is_missing_is_named():
    with pytest.raises(ValueError, match="attends to a context, and was given none"):
        make(context=8)(draw(2, 5, 12), torch.arange(5)[None])
    with pytest.raises(ValueError, match="modulated by a condition, and was given none"):
        make(condition=6)(draw(2, 5, 12), torch.arange(5)[None])


def test_only_the_blocks_that_attend_to_a_context_take_part_in_its_memory():
    """A plain block, then one with a context: the same as one after the other."""
    plain, crossed = make(1), make(1, context=8)
    both = Stack([*plain.layers, *crossed.layers], Positions())
    x, context, places = draw(2, 5, 12), draw(2, 4, 8, seed=1), torch.arange(5)[None]
    first = Stack(plain.layers, Positions())(x, places)
    expected = Stack(crossed.layers, Positions())(first, places, memory=crossed.remember(context))
    assert torch.equal(both(x, places, memory=both.remember(context)), expected)


def test_wrong_shapes_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is in use
    with pytest.raises(ShapeError, match=r"Stack: x has shape \[2, 5, 8\], expected \[B, T, 12\]"):
        make()(torch.zeros(2, 5, 8), torch.arange(5)[None])
    with pytest.raises(ShapeError, match=r"Stack: x has shape \[5, 12\], expected \[B, T, 12\]"):
        make()(torch.zeros(5, 12), torch.arange(5)[None])


def test_positions_that_are_not_those_of_x_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    stack, x = make(positions=Rotary(4)), torch.zeros(2, 5, 12, dtype=torch.float64)
    for positions in (torch.tensor([[0]]), torch.arange(5)[None].expand(3, 5), torch.arange(6)[None], torch.arange(5)):
        with pytest.raises(ShapeError, match=r"Stack: positions has shape .*, expected \[2 or 1, 5, ...\]"):
            stack(x, positions)


def test_an_order_that_does_not_exist_or_cannot_be_modulated_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match="order 'mid': expected one of pre, post"):
        make(order="mid")
    with pytest.raises(ValueError, match="order 'post' with a modulation; expected 'pre'"):
        make(order="post", condition=6)
