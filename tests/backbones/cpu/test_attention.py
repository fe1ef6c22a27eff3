"""Attention by our kernel beside the definition in float64."""

import math

import pytest
import torch
from torch import Tensor

from backbones.cpu import attention, kernels
from backbones.masks import Mask


def drawn(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def defined(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, in float64 and by its words."""
    scores = (q.double() @ k.double().mT / math.sqrt(q.shape[-1])).exp()
    return scores / scores.sum(-1, keepdim=True) @ v.double()


@pytest.mark.parametrize("width", [16, 32, 64, 96])
@pytest.mark.parametrize(("queries", "keys"), [(12, 32), (1, 1), (25, 77), (64, 5), (30, 100)])
def test_it_is_attention(width: int, queries: int, keys: int) -> None:
    q, k, v = (drawn(2, 3, n, width, seed=i) for i, n in enumerate((queries, keys, keys)))
    torch.testing.assert_close(attention.attend(q, k, v).double(), defined(q, k, v), rtol=0, atol=3e-6)


@pytest.mark.parametrize("scale", [1e-3, 5.0, 30.0])
def test_scores_of_any_size(scale: float) -> None:
    """Up to some 5,000: nearly one key alone counts there, and 2^x underflows for the others."""
    q, k, v = drawn(1, 2, 24, 32, scale=scale), drawn(1, 2, 40, 32, seed=1, scale=scale), drawn(1, 2, 40, 32, seed=2)
    scores = q.double() @ k.double().mT / math.sqrt(32)
    expected = scores.softmax(-1) @ v.double()
    torch.testing.assert_close(attention.attend(q, k, v).double(), expected, rtol=0, atol=2e-5 * (1 + scale))


def test_strided_inputs_are_read_as_they_lie() -> None:
    q, k, v = (drawn(2, 20, 3, 16, seed=i).transpose(1, 2) for i in range(3))
    found = attention.attend(q, k, v)
    assert torch.equal(found, attention.attend(q.contiguous(), k.contiguous(), v.contiguous()))
    assert found.transpose(1, 2).is_contiguous()


def test_a_row_depends_on_no_other_and_not_on_its_place() -> None:
    q, k, v = (drawn(5, 2, 30, 32, seed=i) for i in range(3))
    together = attention.attend(q, k, v)
    turned = attention.attend(q.roll(2, 0), k.roll(2, 0), v.roll(2, 0))
    assert torch.equal(turned, together.roll(2, 0))
    assert torch.equal(attention.attend(q[3:4], k[3:4], v[3:4]), together[3:4])
    places = attention.attend(q.flip(2), k, v)  # a query among others
    assert torch.equal(places.flip(2), together)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_nan_stays_where_it_can_be_seen(which: int) -> None:
    parts = [drawn(2, 2, 20, 16, seed=i) for i in range(3)]
    parts[which][1, 0, 4, 3] = torch.nan
    found, expected = attention.attend(*parts).isnan(), defined(*parts).isnan()
    assert torch.equal(found, expected)


def test_powers_of_two() -> None:
    """`soften` over the whole range: within 3e-7 of 2^x, and never beneath the smallest normal number."""
    x = torch.cat([torch.linspace(-126, 0, 4003), torch.tensor([-1e4, -127.0, -500.0])]).sort().values
    x = torch.cat([x, torch.zeros(-len(x) % 16)])
    found = x.clone().numpy()
    total = kernels.softened(found)
    expected = x.double().exp2().clamp(min=2.0**-126)
    assert ((torch.from_numpy(found) - expected).abs() <= 3e-7 * expected).all()
    assert total == pytest.approx(expected.sum().item(), rel=1e-6)


@pytest.mark.parametrize(
    "case", ["masked", "causal", "biased", "grouped", "double", "other width", "other values"], ids=str
)
def test_what_it_is_not_for_goes_the_plain_way(case: str) -> None:
    q, k, v = (drawn(2, 4, 20, 32, seed=i) for i in range(3))
    mask, bias = Mask(), None
    if case == "masked":
        mask = Mask(allowed=drawn(1, 1, 20, 20) > 0)
    if case == "causal":
        mask = Mask(causal=True)
    if case == "biased":
        bias = drawn(1, 4, 20, 20, seed=4)
    if case == "grouped":
        k, v = k[:, :2], v[:, :2]
    if case == "double":
        q, k, v = q.double(), k.double(), v.double()
    if case == "other width":
        q, k, v = q[..., :24], k[..., :24], v[..., :24]
    if case == "other values":
        v = v[..., :16]
    assert torch.equal(attention.attend(q, k, v, mask, bias), attention.attention.attend(q, k, v, mask, bias))
