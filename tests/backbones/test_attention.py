"""Attention against a softmax written out, and against leaks. (Against torch's module: convert/test_pytorch.py.)"""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch

from backbones.attention import Attention, Cache, attend
from backbones.initialise import build
from backbones.masks import CAUSAL, FULL, Mask, padding, until
from backbones.shape import ShapeError


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


@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (1, 4, 5, 5), (2, 1, 5, 5), (1, 1, 5, 5)])
@pytest.mark.parametrize("name", MASKS)
def test_a_bias_is_added_to_the_logits_that_the_mask_leaves(name: str, shape: tuple[int, ...]):
    """The oracle is a sum over keys of exponentials, each query by itself; its gradients are autograd's own."""
    leaves = [draw(2, 4, 5, 6), draw(2, 2, 5, 6, seed=1), draw(2, 2, 5, 6, seed=2), draw(*shape, seed=3)]
    found, expected = ([leaf.clone().requires_grad_() for leaf in leaves] for _ in range(2))
    out = attend(*found[:3], MASKS[name], found[3])
    q, k, v, bias = expected
    k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    weight = ((q @ k.mT) / math.sqrt(6) + bias).exp() * matrix(name)[:, None]
    torch.testing.assert_close(out, weight @ v / weight.sum(-1, keepdim=True), rtol=0, atol=1e-12)
    toward = draw(*out.shape, seed=4)
    (out * toward).sum().backward()
    (weight @ v / weight.sum(-1, keepdim=True) * toward).sum().backward()
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("name", ["causal", "padding", "causal and padding", "until"])
@pytest.mark.parametrize("biased", [False, True])
def test_what_is_hidden_cannot_leak(name: str, groups: int, biased: bool):
    q, k, v = draw(2, 4, 5, 6).float(), draw(2, groups, 5, 6, seed=1).float(), draw(2, groups, 5, 6, seed=2).float()
    bias = draw(1, 4, 5, 5, seed=3).float() if biased else None
    before, allowed = attend(q, k, v, MASKS[name], bias), matrix(name)
    for b in range(2):
        for s in range(5):
            k2, v2 = k.clone(), v.clone()
            k2[b, :, s], v2[b, :, s] = 1e9, -1e9
            blind = ~allowed[b, :, s]
            assert torch.equal(attend(q, k2, v2, MASKS[name], bias)[b, :, blind], before[b, :, blind])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("biased", [False, True])
def test_a_query_that_may_see_nothing_gets_zeros_and_gives_no_gradient(dtype: torch.dtype, groups: int, biased: bool):
    allowed = torch.ones(2, 1, 40, 40, dtype=torch.bool)
    allowed[:, :, 3] = False
    q, k, v = (draw(2, heads, 40, 16, seed=heads).to(dtype).requires_grad_() for heads in (4, groups, groups))
    bias = draw(1, 4, 40, 40, seed=9).to(dtype).requires_grad_() if biased else None
    out = attend(q, k, v, Mask(allowed=allowed), bias)
    assert not out[:, :, 3].any()
    assert out[:, :, 4].all()
    out.sum().backward()
    for leaf in (q, k, v) if bias is None else (q, k, v, bias):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    assert q.grad is not None
    assert not q.grad[:, :, 3].any()


def test_what_was_stored_is_what_is_seen_whatever_the_slots_held_before():
    """Rows write where they stand: slots out of order, the rest full of 1e9."""
    module = build(lambda: Attention(12, 3, 1), torch.Generator().manual_seed(0)).double()
    cache = Cache(torch.full((2, 1, 9, 4), 1e9).double(), torch.full((2, 1, 9, 4), -1e9).double())
    x, at = draw(2, 5, 12), torch.tensor([[0, 1, 2, 3, 4], [2, 0, 1, 4, 3]])
    found = module(x, until(at, 9), cache=cache, positions=at)
    for row in range(2):
        alone = module(x[row : row + 1, at[row].argsort()], CAUSAL)[:, at[row]]
        torch.testing.assert_close(found[row : row + 1], alone, rtol=0, atol=1e-12)


def test_heads_that_do_not_divide_are_refused_with_all_sizes():
    with pytest.raises(ValueError, match="width 10, heads 4, groups 4"):
        Attention(10, 4)
    with pytest.raises(ValueError, match="width 12, heads 6, groups 4"):
        Attention(12, 6, 4)


def test_wrong_shapes_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as it is in use
    module = Attention(12, 3, context=8)
    memory = module.read(torch.zeros(1, 5, 8))
    with pytest.raises(ShapeError, match=r"x has shape \[1, 5, 8\], expected \[B, T, 12\]"):
        module(torch.zeros(1, 5, 8))
    with pytest.raises(ShapeError, match=r"context has shape \[1, 5, 12\], expected \[B, S, 8\]"):
        module.read(torch.zeros(1, 5, 12))
    with pytest.raises(ShapeError, match=r"x has shape \[1, 5, 8\], expected \[1, T, 12\]"):
        module.cross(torch.zeros(1, 5, 8), memory)
    with pytest.raises(ShapeError, match=r"x has shape \[3, 5, 12\], expected \[1, T, 12\], a row for each of the"):
        module.cross(torch.zeros(3, 5, 12), memory)
    for call in (module, module.read, lambda x: module.cross(x, memory)):
        with pytest.raises(ShapeError, match=r"has shape \[5, 12\], expected \["):
            call(torch.zeros(5, 12))


def test_a_cache_without_the_slots_to_store_at_is_refused():
    cache = Cache(torch.zeros(1, 3, 5, 4), torch.zeros(1, 3, 5, 4))
    with pytest.raises(ValueError, match="a cache but no positions; expected the slots"):
        Attention(12, 3)(torch.zeros(1, 5, 12), cache=cache)
