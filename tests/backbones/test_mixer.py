"""Every kind of attention in the place of softmax attention: a stack of it is the body of a language model."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from backbones import feed_forward as networks
from backbones.attention import Attention
from backbones.gated import GatedAttention, MixedChunkAttention
from backbones.initialise import build
from backbones.linear_attention import LinearAttention
from backbones.masks import CAUSAL, padding
from backbones.mixer import Mixer
from backbones.positions import ALiBi, Positions, Rotary, Sinusoidal
from backbones.sliding import SlidingAttention
from backbones.stack import Block, Stack

D, T, DEPTH = 16, 9, 2
KINDS: dict[str, Callable[[], Mixer]] = {
    "softmax": lambda: Attention(D, 4),
    "linear, elu": lambda: LinearAttention(D, 4, "elu"),
    "linear, softmax": lambda: LinearAttention(D, 4, "softmax"),
    "gated": lambda: GatedAttention(D, 24, 8),
    "mixed chunk": lambda: MixedChunkAttention(D, 24, 8, chunk=4),
    "sliding": lambda: SlidingAttention(D, 4, 3),
}
PLACES = torch.arange(T)[None]


def make(kind: str, positions: Positions | None = None) -> Stack:
    def block() -> Block:
        return Block(KINDS[kind](), networks.make("swiglu", D, bias=False), lambda: nn.RMSNorm(D))

    stack = lambda: Stack([block() for _ in range(DEPTH)], positions or Sinusoidal(), nn.RMSNorm(D))  # noqa: E731
    return build(stack, torch.Generator().manual_seed(0))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_neither_the_future_nor_padding_is_seen(kind: str):
    stack, x = make(kind).double(), draw(2, T, D).double()
    mask = CAUSAL & padding(torch.tensor([T, 5]), T)
    before = stack(x, PLACES, mask)
    for cut in (1, 4, T - 1):
        other = x.clone()
        other[:, cut:] = draw(2, T - cut, D, seed=cut)
        after = stack(other, PLACES, mask)
        torch.testing.assert_close(after[:, :cut], before[:, :cut], rtol=0, atol=1e-12)
        assert not torch.allclose(after[0, cut:], before[0, cut:])
    alone = stack(x[1:, :5], PLACES[:, :5], CAUSAL)
    torch.testing.assert_close(before[1, :5], alone[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_calls_it_with_its_mask_alone(kind: str):
    """The stack, written out."""
    stack, x = make(kind, Positions()).double(), draw(2, T, D).double()
    y = x
    for block in stack.layers:
        y = y + block.attention(block.attention_norm(y), CAUSAL)
        y = y + block.feed_forward(block.feed_forward_norm(y))
    torch.testing.assert_close(stack(x, PLACES, CAUSAL), stack.norm(y), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: str):
    stack = make(kind)
    assert isinstance(stack.layers[0].attention, Mixer)
    x, toward = draw(4, T, D), draw(4, T, D, seed=1)
    optimiser, losses = torch.optim.Adam(stack.parameters(), 1e-2), []
    for _ in range(20):
        loss = (stack(x, PLACES, CAUSAL) - toward).square().mean()
        optimiser.zero_grad()
        loss.backward()
        for name, weight in stack.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.any(), name
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_for_first_weights_covers_its_layers(kind: str):
    """By the sum of all squares of a layer, in units of those the rule says: 1, or for the last layers 1 / (2 L)."""
    stack = make(kind)
    for name, module in stack.named_modules():
        if isinstance(module, nn.Linear):
            last = name.endswith((".output", ".down"))
            variance = 2 / (5 * D) / (2 * DEPTH if last else 1)
            ratio = module.weight.square().mean().item() / variance
            assert ratio == pytest.approx(1, abs=5 * math.sqrt(2 / module.weight.numel())), name
            assert module.bias is None or not module.bias.any(), name


@pytest.mark.parametrize("kind", ["linear, elu", "linear, softmax", "gated", "mixed chunk"])
def test_positions_that_turn_are_refused_by_who_cannot_be_turned(kind: str):
    with pytest.raises(ValueError, match="attention: turn of tuple; it knows none, expected None"):
        make(kind, Rotary(4))(draw(2, T, D), PLACES, CAUSAL)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "softmax"])
def test_a_bias_and_a_cache_are_refused_by_who_has_no_place_for_them(kind: str):
    with pytest.raises(ValueError, match="attention: bias of Tensor; it knows none, expected None"):
        make(kind, ALiBi(4))(draw(2, T, D), PLACES, CAUSAL)
    with pytest.raises(ValueError, match="Attention keeps no keys and values, expected a kind"):
        make(kind).cache(2, T)
