"""Additive attention against Bahdanau's equations, one pair at a time."""

from __future__ import annotations

import math

import pytest
import torch

from backbones.additive import AdditiveAttention
from backbones.initialise import build
from backbones.masks import CAUSAL, FULL, Mask, padding, window
from backbones.shape import ShapeError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(query: int = 3, key: int = 4, hidden: int = 5) -> AdditiveAttention:
    attention = AdditiveAttention(query, key, hidden).double()
    with torch.no_grad():
        for seed, weight in enumerate(attention.parameters()):
            weight.copy_(draw(*weight.shape, seed=10 + seed))
    return attention


MASKS = {
    "full": (FULL, lambda b, t, s: True),
    "causal": (CAUSAL, lambda b, t, s: s <= t),
    "padding": (padding(torch.tensor([6, 2]), 6), lambda b, t, s: s < (6, 2)[b]),
    "causal and padding": (CAUSAL & padding(torch.tensor([6, 2]), 6), lambda b, t, s: s <= t and s < (6, 2)[b]),
    "window": (window(2, 6), lambda b, t, s: t - 2 < s <= t),
}


@pytest.mark.parametrize("name", MASKS)
def test_additive_attention_equals_its_equations_one_pair_at_a_time(name: str) -> None:
    attention, (mask, sees) = drawn(), MASKS[name]
    q, k, v = draw(2, 6, 3), draw(2, 6, 4, seed=1), draw(2, 6, 2, seed=2)
    w, u, score = (p.detach() for p in (attention.query.weight, attention.key.weight, attention.score.weight[0]))
    with torch.no_grad():
        out, weights = attention(q, k, v, mask)
    for b in range(2):
        for t in range(6):
            keys = [s for s in range(6) if sees(b, t, s)]
            odds = [math.exp(sum(score * torch.tanh(w @ q[b, t] + u @ k[b, s]))) for s in keys]
            expected = sum(o * v[b, s] for o, s in zip(odds, keys, strict=True)) / sum(odds)
            torch.testing.assert_close(out[b, t], expected, rtol=0, atol=1e-12)
            for o, s in zip(odds, keys, strict=True):
                assert weights[b, t, s].item() == pytest.approx(o / sum(odds), abs=1e-12)
            assert weights[b, t].sum().item() == pytest.approx(1)


def test_gradients_equal_finite_differences_for_inputs_and_weights() -> None:
    attention, mask = drawn(2, 3, 2), CAUSAL & padding(torch.tensor([3, 1]), 3)
    inputs = [draw(2, 3, 2), draw(2, 3, 3, seed=1), draw(2, 3, 2, seed=2)]
    weights = [weight.detach().clone() for weight in attention.parameters()]
    names = [name for name, _ in attention.named_parameters()]

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *parameters: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.func.functional_call(attention, dict(zip(names, parameters, strict=True)), (q, k, v, mask))

    assert torch.autograd.gradcheck(run, [x.requires_grad_() for x in (*inputs, *weights)])


def test_a_query_that_may_see_nothing_gets_zeros_and_no_gradient() -> None:
    attention, hidden = drawn(), Mask(allowed=torch.tensor([True, False])[:, None, None, None].expand(2, 1, 1, 4))
    v = draw(2, 4, 2).requires_grad_()
    out, weights = attention(draw(2, 3, 3), draw(2, 4, 4), v, hidden)
    assert not out[1].any()
    assert not weights[1].any()
    out.sum().backward()
    assert not v.grad[1].any()
    assert v.grad[0].all()


def test_it_begins_by_looking_at_all_keys_alike() -> None:
    attention = build(lambda: AdditiveAttention(3, 4, 5), torch.Generator().manual_seed(0)).double()
    _, weights = attention(draw(2, 3, 3), draw(2, 4, 4), draw(2, 4, 2))
    torch.testing.assert_close(weights, torch.full((2, 3, 4), 0.25, dtype=torch.float64))


def test_wrong_widths_and_masks_are_refused_with_what_was_expected() -> None:
    attention = drawn()
    with pytest.raises(ShapeError, match=r"q has shape \[2, 3, 4\], expected \[B, T, 3\]"):
        attention(draw(2, 3, 4), draw(2, 4, 4), draw(2, 4, 2))
    with pytest.raises(ShapeError, match=r"k has shape \[2, 4, 3\], expected \[B, S, 4\]"):
        attention(draw(2, 3, 3), draw(2, 4, 3), draw(2, 4, 2))
    by_head = Mask(allowed=torch.ones(1, 2, 3, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"additive attention: mask of shape \[1, 2, 3, 4\] differs by head"):
        attention(draw(2, 3, 3), draw(2, 4, 4), draw(2, 4, 2), by_head)


@pytest.mark.usefixtures("as_in_use")
def test_one_row_of_keys_for_many_of_queries_is_refused() -> None:
    module = AdditiveAttention(3, 4, 5)
    with pytest.raises(ShapeError, match=r"q has shape \[3, 2, 3\], expected \[1, T, q\], a row for each of keys"):
        module(torch.zeros(3, 2, 3), torch.zeros(1, 6, 4), torch.zeros(1, 6, 2))
