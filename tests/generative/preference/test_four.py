"""What is done to the four vectors before a loss: against formulas, derivatives and the policies they end at."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from generative.preference.contrastive import bradley_terry, ipo
from generative.preference.four import DIVERGENCES, LARGE, Divergence, Four, diverging, exponential, log1mexp, per_token
from tests.oracles.preference import GENERATORS, closed_form, divergent_form

FOUR = Four(*(torch.tensor(x, dtype=torch.float64) for x in ([-1.0, -7.0], [-4.0, -2.0], [-3.0, -3.5], [-2.0, -9.0])))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_a_divergence_is_the_derivative_of_its_generator(divergence: Divergence):
    """f'(u) by central differences of f, u = pi / ref, less f'(1)."""
    found = diverging(FOUR, divergence, 0.3)
    f, step = GENERATORS[divergence](0.3), 1e-6
    slope = lambda u: (f(u + step) - f(u - step)) / (2 * step)  # noqa: E731
    for mine, ratio in zip(found[:2], FOUR.ratios, strict=True):
        expected = [slope(math.exp(x)) - slope(1.0) for x in ratio.tolist()]
        assert mine.tolist() == pytest.approx(expected, rel=1e-5)
    assert not found.ref_c.any()
    assert not found.ref_r.any()


def test_the_alpha_divergence_lies_between_the_two_of_kullback_and_leibler():
    for alpha, end in ((1e-6, "reverse-kl"), (1 - 1e-6, "forward-kl")):
        near, exact = diverging(FOUR, "alpha", alpha), diverging(FOUR, end)
        torch.testing.assert_close(near.pi_c, torch.as_tensor(exact.pi_c), rtol=1e-4, atol=1e-4)


@given(st.floats(-200, 200))
def test_exp_goes_on_as_its_tangent(x: float):
    value = torch.tensor([x], dtype=torch.float64, requires_grad=True)
    found = exponential(value)
    (slope,) = torch.autograd.grad(found.sum(), value)
    if x < LARGE:
        assert found.item() == pytest.approx(math.exp(x), rel=1e-12)
        assert slope.item() == pytest.approx(math.exp(x), rel=1e-12)
    elif x > LARGE:
        assert found.item() == pytest.approx(math.exp(LARGE) * (1 + x - LARGE), rel=1e-12)
        assert slope.item() == pytest.approx(math.exp(LARGE), rel=1e-12)


@settings(max_examples=200)
@given(st.floats(-700, -1e-12))
def test_log1mexp_is_exact_at_both_ends(x: float):
    exact = math.log1p(-math.exp(x)) if x < -1 else math.log(-math.expm1(x))
    assert log1mexp(torch.tensor([x], dtype=torch.float64)).item() == pytest.approx(exact, rel=1e-12, abs=1e-300)


def test_per_token_divides_each_side_by_its_own_length():
    """An empty one, on either side, counts as one token."""
    for chosen, rejected in (([2, 0], [4, 1]), ([2, 1], [4, 0])):
        found = per_token(FOUR, torch.tensor(chosen), torch.tensor(rejected))
        expected = ([-0.5, -7.0], [-1.0, -2.0], [-1.5, -3.5], [-0.5, -9.0])
        assert [vector.tolist() for vector in found] == [pytest.approx(each) for each in expected]


def tabular(loss: Callable[[Tensor, Tensor], Tensor], reference: Tensor, steps: int = 400) -> Tensor:
    """Minimise loss(log pi [N], log ref [N]) over a softmax in float64 by L-BFGS; returns log pi."""
    logits = reference.log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(logits.log_softmax(0), reference.log())
        value.backward()
        return value

    optimizer.step(closure)
    return logits.log_softmax(0).detach()


@pytest.mark.parametrize("graph", ["all pairs", "a chain"])
@pytest.mark.parametrize(
    ("divergence", "beta"),
    [("reverse-kl", 0.2), ("reverse-kl", 1.0), ("forward-kl", 1.0), ("js", 2.0), ("alpha", 1.0), ("alpha", 0.4)],
)
def test_tabular_dpo_with_soft_labels_reaches_the_closed_form(divergence: Divergence, beta: float, graph: str):
    """Seven completions, labels in the proportions of Bradley & Terry: on any connected graph of comparisons DPO's
    minimum is the policy that maximises E[r] - beta D_f(pi | ref), to 1e-4 in total variation.
    """
    rng = np.random.default_rng(0)
    reference, reward = rng.dirichlet(np.ones(7)), rng.normal(size=7)
    i, j = np.triu_indices(7, 1) if graph == "all pairs" else (np.arange(6), np.arange(1, 7))
    wins = torch.tensor(1 / (1 + np.exp(reward[j] - reward[i])))

    def loss(pi: Tensor, ref: Tensor) -> Tensor:
        four = diverging(Four(pi[i], pi[j], ref[i], ref[j]), divergence, 0.5)
        return bradley_terry(*four, beta, wins=wins).mean()

    found = tabular(loss, torch.tensor(reference)).exp().numpy()
    truth = divergent_form(reference, reward, beta, divergence, 0.5)
    assert truth.sum() == pytest.approx(1, abs=1e-10)
    assert 0.5 * np.abs(found - truth).sum() < 1e-4
    assert 0.5 * np.abs(reference - truth).sum() > 0.05  # it had somewhere to go
    if divergence == "reverse-kl":
        np.testing.assert_allclose(truth, closed_form(reference, reward, beta), atol=1e-9)
    else:
        assert 0.5 * np.abs(truth - closed_form(reference, reward, beta)).sum() > 0.01  # and it is another place


def test_tabular_ipo_reaches_its_fixed_point():
    """With p the chance of winning, mean IPO over both orders is least at h = (2 p - 1) / (2 beta) for one pair."""
    p, beta = 0.8, 0.1

    def loss(pi: Tensor, ref: Tensor) -> Tensor:
        one, other = (pi[:1], pi[1:], ref[:1], ref[1:]), (pi[1:], pi[:1], ref[1:], ref[:1])
        return (p * ipo(*one, beta) + (1 - p) * ipo(*other, beta)).mean()

    reference = torch.tensor([0.3, 0.7], dtype=torch.float64)
    found = tabular(loss, reference)
    h = (found[0] - found[1]) - (reference[0] / reference[1]).log()
    assert h.item() == pytest.approx((2 * p - 1) / (2 * beta), rel=1e-6)
