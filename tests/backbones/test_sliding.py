"""Sliding-window attention against the whole matrix with a window's mask."""

from __future__ import annotations

import pytest
import torch

from backbones.attention import Attention, Cache, attend
from backbones.initialise import build
from backbones.masks import CAUSAL, FULL, Mask, blocks, padding, window
from backbones.positions import Rotary
from backbones.shape import ShapeError
from backbones.sliding import SlidingAttention, slide


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 3, 4, 11, 12, 13])
@pytest.mark.parametrize("width", [1, 3, 4, 20])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("hidden", ["nothing", "future", "padding", "both"])
def test_chunks_equal_the_whole_matrix(length: int, width: int, ahead: bool, hidden: str) -> None:
    pad = padding(torch.tensor([length, length // 2]), length)
    mask = {"nothing": FULL, "future": CAUSAL, "padding": pad, "both": CAUSAL & pad}[hidden]
    q, k, v = (
        draw(2, heads, length, d, seed=s).requires_grad_() for s, (heads, d) in enumerate([(4, 6), (2, 6), (2, 5)])
    )
    whole = attend(q, k, v, window(width, length, ahead=ahead) & mask)
    slid = slide(q, k, v, width, mask, ahead=ahead)
    torch.testing.assert_close(slid, whole, rtol=0, atol=1e-12)
    pull = draw(*whole.shape, seed=5)
    pairs = [torch.autograd.grad((y * pull).sum(), (q, k, v)) for y in (whole, slid)]
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_the_module_is_attention_with_its_weights_and_a_window() -> None:
    whole = build(lambda: Attention(12, 4, 2), torch.Generator().manual_seed(0)).double()
    slid = SlidingAttention(12, 4, 3, groups=2).double()
    slid.load_state_dict(whole.state_dict())
    x, pad = draw(2, 10, 12), padding(torch.tensor([10, 4]), 10)
    torch.testing.assert_close(slid(x, CAUSAL & pad), whole(x, window(3, 10) & pad), rtol=0, atol=1e-12)


def test_what_it_cannot_honour_is_refused() -> None:
    module = SlidingAttention(4, 2, 3)
    with pytest.raises(ValueError, match=r"sliding window attention: mask of shape \[1, 1, 3, 3\]"):
        module(torch.zeros(2, 3, 4), blocks(torch.tensor([[0, 0, 1]])))
    with pytest.raises(ValueError, match="sliding window attention: mask of shape"):
        module(torch.zeros(2, 3, 4), Mask(allowed=torch.ones(2, 2, 1, 3, dtype=torch.bool)))
    with pytest.raises(ShapeError, match=r"x has shape \[2, 3, 5\], expected \[B, T, 4\]"):
        module(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="window 0: heads must divide"):
        SlidingAttention(4, 2, 0)
    with pytest.raises(ValueError, match="window of width 0"):
        slide(*(torch.zeros(1, 1, 2, 2) for _ in range(3)), 0)


@pytest.mark.usefixtures("as_in_use")
def test_a_mask_of_other_keys_is_refused() -> None:
    for total in (5, 7, 8):  # 7 and 8 would fit the last chunk, and pass
        with pytest.raises(ShapeError, match=r"sliding window attention: mask has shape .* \[2 or 1, 1, 1, 6\]"):
            SlidingAttention(4, 2, 3)(torch.zeros(2, 6, 4), padding(torch.tensor([5, 2]), total))


def test_queries_and_keys_are_turned_before_they_are_cut() -> None:
    whole = build(lambda: Attention(12, 3), torch.Generator().manual_seed(0)).double()
    slid = SlidingAttention(12, 3, 3).double()
    slid.load_state_dict(whole.state_dict())
    x, places = draw(2, 10, 12).requires_grad_(), torch.stack([torch.arange(10), torch.arange(10).flip(0) * 3])
    turn = Rotary(4).turn(places, torch.float64)
    found, expected = slid(x, CAUSAL, turn), whole(x, window(3, 10), turn)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert not torch.allclose(found, slid(x, CAUSAL))
    pull = draw(2, 10, 12, seed=5)
    for a, b in zip(*(torch.autograd.grad((y * pull).sum(), [x]) for y in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_what_it_has_no_place_for_is_refused_by_name() -> None:
    x = torch.zeros(2, 3, 4)
    given = {"bias": torch.zeros(1, 2, 3, 3), "cache": Cache(torch.zeros(2, 2, 3, 2), torch.zeros(2, 2, 3, 2))}
    for name, value in given.items():
        with pytest.raises(ValueError, match=f"sliding window attention: {name} of .* expected None"):
            SlidingAttention(4, 2, 3)(x, **{name: value})
