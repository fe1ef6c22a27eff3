"""Attention against torch's own module, against a softmax written out, and against leaks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from backbones.attention import Attention, attend
from backbones.initialise import build
from backbones.masks import CAUSAL, FULL, Mask, padding, until


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    """One query at a time; `allowed` [B, T, S]; head h of H reads key-value head h G // H."""
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            g = h * k.shape[1] // q.shape[1]
            for t in range(q.shape[2]):
                seen = allowed[b, t].nonzero()[:, 0]
                score = torch.stack([q[b, h, t] @ k[b, g, s] for s in seen]) / math.sqrt(q.shape[-1])
                weight = score.exp() / score.exp().sum()
                out[b, h, t] = sum(w * v[b, g, s] for w, s in zip(weight, seen, strict=True))
    return out


MASKS = {
    "full": FULL,
    "causal": CAUSAL,
    "padding": padding(torch.tensor([5, 2]), 5),
    "causal and padding": CAUSAL & padding(torch.tensor([5, 2]), 5),
    "until": until(torch.tensor([[0, 1, 2, 3, 4], [2, 0, 1, 4, 3]]), 5),
}


def matrix(name: str) -> torch.Tensor:
    """The masks again, entry by entry: [2, 5, 5]."""
    lengths, positions = (5, 2), ((0, 1, 2, 3, 4), (2, 0, 1, 4, 3))
    rules = {
        "full": lambda b, t, s: True,
        "causal": lambda b, t, s: s <= t,
        "padding": lambda b, t, s: s < lengths[b],
        "causal and padding": lambda b, t, s: s <= t and s < lengths[b],
        "until": lambda b, t, s: s <= positions[b][t],
    }
    return torch.tensor([[[rules[name](b, t, s) for s in range(5)] for t in range(5)] for b in range(2)])


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("groups", [4, 2, 1])
def test_attend_equals_a_softmax_written_out(name: str, groups: int):
    q, k, v = draw(2, 4, 5, 6), draw(2, groups, 5, 6, seed=1), draw(2, groups, 5, 6, seed=2)
    torch.testing.assert_close(attend(q, k, v, MASKS[name]), naive(q, k, v, matrix(name)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [False, True])
def test_the_module_equals_torchs_multihead_attention_in_values_and_gradients(bias: bool):
    ours = build(lambda: Attention(12, 3, bias=bias), torch.Generator().manual_seed(0)).double()
    with torch.random.fork_rng(devices=[]):
        peer = nn.MultiheadAttention(12, 3, bias=bias, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        peer.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        peer.out_proj.weight.copy_(ours.output.weight)
        if bias:
            peer.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
            peer.out_proj.bias.copy_(ours.output.bias)
    x = draw(2, 7, 12)
    above = torch.ones(7, 7, dtype=torch.bool).triu(1)  # torch's convention: True is hidden
    mine, theirs = ours(x, CAUSAL), peer(x, x, x, attn_mask=above, need_weights=False)[0]
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)
    mine.square().sum().backward()
    theirs.square().sum().backward()
    torch.testing.assert_close(ours.output.weight.grad, peer.out_proj.weight.grad, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.key.weight.grad, peer.in_proj_weight.grad[12:24], rtol=0, atol=1e-10)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("name", ["causal", "padding", "causal and padding", "until"])
def test_what_is_hidden_cannot_leak(name: str, groups: int):
    q, k, v = draw(2, 4, 5, 6).float(), draw(2, groups, 5, 6, seed=1).float(), draw(2, groups, 5, 6, seed=2).float()
    before, allowed = attend(q, k, v, MASKS[name]), matrix(name)
    for b in range(2):
        for s in range(5):
            k2, v2 = k.clone(), v.clone()
            k2[b, :, s], v2[b, :, s] = 1e9, -1e9
            blind = ~allowed[b, :, s]
            assert torch.equal(attend(q, k2, v2, MASKS[name])[b, :, blind], before[b, :, blind])


def test_a_query_that_may_see_nothing_gets_zeros():
    hidden = Mask(allowed=torch.zeros(1, 1, 3, 4, dtype=torch.bool))
    out = attend(draw(2, 2, 3, 4).float(), draw(2, 2, 4, 4).float(), draw(2, 2, 4, 4).float(), hidden)
    assert torch.equal(out, torch.zeros(2, 2, 3, 4))


def test_heads_that_do_not_divide_are_refused_with_all_sizes():
    with pytest.raises(ValueError, match="width 10, heads 4, groups 4"):
        Attention(10, 4)
    with pytest.raises(ValueError, match="width 12, heads 6, groups 4"):
        Attention(12, 6, 4)
