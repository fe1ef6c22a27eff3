"""Nadaraya-Watson regression against its sums one point at a time, and against torch's dot-product attention."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from backbones.kernel_attention import gaussian_attend, nadaraya_watson
from backbones.masks import CAUSAL, FULL, Mask, padding
from backbones.shape import ShapeError


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KERNELS: dict[str, Callable[[float], float]] = {
    "gaussian": lambda u: math.exp(-(u**2) / 2) / math.sqrt(2 * math.pi),
    "epanechnikov": lambda u: 0.75 * (1 - u**2) if abs(u) < 1 else 0.0,
    "boxcar": lambda u: 0.5 if abs(u) <= 1 else 0.0,
}
MASKS = {
    "full": (FULL, lambda b, t, s: True),
    "causal and padding": (CAUSAL & padding(torch.tensor([6, 3]), 6), lambda b, t, s: s <= t and s < (6, 3)[b]),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", MASKS)
def test_the_regression_equals_its_sums(kernel: str, name: str) -> None:
    mask, sees = MASKS[name]
    q, k, v = draw(2, 6, 2), draw(2, 6, 2, seed=1), draw(2, 6, 3, seed=2)
    out, weights = nadaraya_watson(q, k, v, 1.3, kernel, mask)
    empty = 0
    for b in range(2):
        for t in range(6):
            heights = [
                KERNELS[kernel](math.dist(q[b, t].tolist(), k[b, s].tolist()) / 1.3) if sees(b, t, s) else 0.0
                for s in range(6)
            ]
            total = sum(heights)
            empty += total == 0
            expected = torch.tensor(heights).double() / (total or 1)
            torch.testing.assert_close(weights[b, t], expected, rtol=0, atol=1e-6)
            exact = sum(h * v[b, s] for s, h in enumerate(heights)) / (total or 1)
            torch.testing.assert_close(out[b, t], exact + 0 * v[b, 0], rtol=0, atol=1e-12)
    assert empty == 0 or kernel != "gaussian"


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_equal_finite_differences_for_points_and_bandwidth(kernel: str) -> None:
    q, k, v = (draw(1, 4, 2, seed=s).requires_grad_() for s in range(3))
    bandwidth = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: nadaraya_watson(*x, kernel, CAUSAL)[0], (q, k, v, bandwidth))


@pytest.mark.parametrize("name", MASKS)
def test_gaussian_kernel_attention_is_dot_product_attention_with_a_fine_on_long_keys(name: str) -> None:
    mask, _ = MASKS[name]
    q, k, v = (draw(2, 6, d, seed=s).requires_grad_() for s, d in enumerate((2, 2, 3)))
    slow = nadaraya_watson(q, k, v, 0.7, "gaussian", mask)[0]
    fast = gaussian_attend(q[:, None], k[:, None], v[:, None], 0.7, mask)[:, 0]
    torch.testing.assert_close(fast, slow, rtol=0, atol=1e-12)
    pull = draw(2, 6, 3, seed=5)
    pairs = [torch.autograd.grad((y * pull).sum(), (q, k, v)) for y in (slow, fast)]
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_points_far_away_give_a_mean_and_not_no_number() -> None:
    """At distance 1000 bandwidths every exponential is 0; the softmax of the logarithms is not."""
    out, _ = nadaraya_watson(
        torch.zeros(1, 1, 1), torch.tensor([[[1000.0], [1001.0]]]), torch.tensor([[[3.0], [5]]]), 1.0
    )
    assert out.item() == 3


def test_a_point_at_the_rim_of_the_kernel_has_a_gradient() -> None:
    """There log(1 - u^2) is -inf, and its derivative no number."""
    q, k = torch.zeros(1, 1, 1, requires_grad=True), torch.tensor([[[0.5], [1.0], [2.0]]], requires_grad=True)
    out, weights = nadaraya_watson(q, k, torch.tensor([[[1.0], [2.0], [3.0]]]), 1.0, "epanechnikov")
    assert weights.tolist() == [[[1.0, 0.0, 0.0]]]
    for grad in torch.autograd.grad(out.sum(), (q, k)):
        assert grad.isfinite().all()


def test_what_makes_no_sense_is_refused() -> None:
    q, k, v = draw(1, 2, 2), draw(1, 3, 2), draw(1, 3, 1)
    with pytest.raises(ShapeError, match=r"k has shape \[1, 3, 1\], expected \[B, S, 2\]"):
        nadaraya_watson(q, v, v, 1.0)
    with pytest.raises(ValueError, match=r"bandwidth 0\.0: expected a number above 0"):
        nadaraya_watson(q, k, v, 0.0)
    by_head = Mask(allowed=torch.ones(1, 2, 2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"kernel attention: mask of shape .* differs by head"):
        nadaraya_watson(q, k, v, 1.0, mask=by_head)


@pytest.mark.usefixtures("as_in_use")
def test_one_row_of_points_for_many_of_queries_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"k has shape \[1, 6, 3\], expected \[3, S, 3\], a row for each"):
        nadaraya_watson(torch.zeros(3, 2, 3), torch.zeros(1, 6, 3), torch.zeros(1, 6, 2), 1.0)
