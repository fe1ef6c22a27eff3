"""The losses against published numbers, closed-form gradients and the policy that they must end at."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from generative.preference.losses import LOSSES, bradley_terry, cdpo, ipo, robust, sigmoid
from tests.oracles.preference import closed_form, dpo_gradient

CASE = [
    torch.tensor([-0.5, -10.0, -1.0]),
    torch.tensor([-0.1, -30.0, -21.0]),
    torch.tensor([-0.5, -10.1, -0.1]),
    torch.tensor([-0.1, -20.1, -0.1]),
]

PUBLISHED = {
    "sigmoid": [0.693147, 0.313262, 0.126928],
    "cdpo": [0.693147, 0.413262, 0.326928],
    "ipo": [25.0, 25.0, 225.0],
    "hinge": [1.0, 0.0, 0.0],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_losses_equal_their_published_values(name: str):
    torch.testing.assert_close(LOSSES[name](*CASE, 0.1), torch.tensor(PUBLISHED[name]), rtol=0, atol=2e-6)


def test_every_loss_is_the_same_at_the_reference_whatever_the_completions():
    same = [CASE[0], CASE[1], CASE[0], CASE[1]]
    assert torch.equal(sigmoid(*same), torch.full((3,), math.log(2)))
    for loss in LOSSES.values():
        value = loss(*same, 0.1)
        assert torch.equal(value, value[:1].expand(3))


@settings(max_examples=300, deadline=None)
@example([0.0, 0.0, -37.25, -47.5], 2.0)  # torch's softplus is wrong in the ninth digit here: it turns linear at 20
@given(
    st.lists(st.floats(-50, 0), min_size=4, max_size=4),
    st.floats(0.01, 2.0),
)
def test_the_gradient_of_dpo_is_the_closed_formula(numbers: list[float], beta: float):
    values = [torch.tensor([x], dtype=torch.float64, requires_grad=i < 2) for i, x in enumerate(numbers)]
    sigmoid(*values, beta).sum().backward()
    h = (numbers[0] - numbers[2]) - (numbers[1] - numbers[3])
    chosen, rejected = dpo_gradient(h, beta)
    assert values[0].grad is not None
    assert values[1].grad is not None
    assert values[0].grad.item() == pytest.approx(chosen, rel=1e-9, abs=1e-15)
    assert values[1].grad.item() == pytest.approx(rejected, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("signs", [(1, 1, -1, -1), (1, -1, -1, 1), (-1, 1, 1, -1), (-1, -1, 1, 1)])
def test_values_and_gradients_are_finite_at_600(name: str, signs: tuple[int, ...]):
    values = [torch.tensor([600.0 * sign], requires_grad=True) for sign in signs]
    for beta in (0.1, 1.0, 5.0):
        value = LOSSES[name](*values, beta)
        assert value.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(value.sum(), values))


def test_cdpo_and_robust_are_expectations_over_flipped_labels():
    """cDPO is the mean over labels that flip; robust is what has the clean loss as its mean when they do."""
    swapped = [CASE[1], CASE[0], CASE[3], CASE[2]]
    e = 0.2
    mean = (1 - e) * sigmoid(*CASE) + e * sigmoid(*swapped)
    torch.testing.assert_close(cdpo(*CASE, smoothing=e), mean)
    unbiased = (1 - e) * robust(*CASE, smoothing=e) + e * robust(*swapped, smoothing=e)
    torch.testing.assert_close(unbiased, sigmoid(*CASE), rtol=0, atol=1e-6)


def tabular(loss, reference: torch.Tensor, steps: int = 300) -> torch.Tensor:
    """Minimise loss(log pi [N], log ref [N]) over a softmax in float64 by L-BFGS; returns log pi."""
    logits = reference.log().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(logits.log_softmax(0), reference.log())
        value.backward()
        return value

    optimizer.step(closure)
    return logits.log_softmax(0).detach()


@pytest.mark.parametrize("beta", [0.2, 1.0])
@pytest.mark.parametrize("graph", ["all pairs", "a chain"])
def test_tabular_dpo_with_soft_labels_reaches_the_closed_form(beta: float, graph: str):
    """Seven completions; DPO's minimum is pi_ref exp(r / beta) / Z on any connected graph of comparisons: TV < 1e-4."""
    rng = np.random.default_rng(0)
    reference, reward = rng.dirichlet(np.ones(7)), rng.normal(size=7)
    i, j = np.triu_indices(7, 1) if graph == "all pairs" else (np.arange(6), np.arange(1, 7))
    wins = torch.tensor(1 / (1 + np.exp(reward[j] - reward[i])))  # Bradley & Terry

    def loss(pi: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        return bradley_terry(pi[i], pi[j], ref[i], ref[j], beta, wins=wins).mean()

    found = tabular(loss, torch.tensor(reference)).exp().numpy()
    assert 0.5 * np.abs(found - closed_form(reference, reward, beta)).sum() < 1e-4
    assert 0.5 * np.abs(reference - closed_form(reference, reward, beta)).sum() > 0.1  # it had somewhere to go


def test_tabular_ipo_reaches_its_fixed_point():
    """With p the chance of winning, mean IPO over both orders is least at h = (2 p - 1) / (2 beta) for one pair."""
    p, beta = 0.8, 0.1

    def loss(pi: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
        one, other = (pi[:1], pi[1:], ref[:1], ref[1:]), (pi[1:], pi[:1], ref[1:], ref[:1])
        return (p * ipo(*one, beta) + (1 - p) * ipo(*other, beta)).mean()

    reference = torch.tensor([0.3, 0.7], dtype=torch.float64)
    found = tabular(loss, reference)
    h = (found[0] - found[1]) - (reference[0] / reference[1]).log()
    assert h.item() == pytest.approx((2 * p - 1) / (2 * beta), rel=1e-6)
