"""Returns against hand-worked arrays and a recursion over episodes written out, ends, limits and cuts told apart."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rl.returns import advantages, lambda_returns, n_step_returns

# Two episodes and the beginning of a third: the first ends the world at t = 2, the second is cut by its limit at t = 4.
R = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=torch.float64)
DISCOUNT = 0.5 * torch.tensor([1, 1, 0, 1, 1, 1], dtype=torch.float64)
V = torch.tensor([10.0, 20.0, 999.0, 40.0, 50.0, 60.0], dtype=torch.float64)  # of successors; 999 must never count
LAST = torch.tensor([False, False, True, False, True, False])


def test_one_step() -> None:
    expected = [1 + 5, 2 + 10, 3, 4 + 20, 5 + 25, 6 + 30]
    assert n_step_returns(R, DISCOUNT, V, LAST, 1).tolist() == expected
    assert lambda_returns(R, DISCOUNT, V, LAST, 0.0).tolist() == expected


def test_two_steps() -> None:
    expected = [1 + 0.5 * 2 + 0.25 * 20, 2 + 0.5 * 3, 3, 4 + 0.5 * 5 + 0.25 * 50, 5 + 25, 6 + 30]
    assert n_step_returns(R, DISCOUNT, V, LAST, 2).tolist() == expected


def test_monte_carlo() -> None:
    """To the end: 1 + 2/2 + 3/4, nothing after; to the limit: 4 + 5/2 and 50 from there; to the cut: 6 and 60."""
    expected = [1 + 1 + 0.75, 2 + 1.5, 3, 4 + 2.5 + 12.5, 5 + 25, 6 + 30]
    assert lambda_returns(R, DISCOUNT, V, LAST, 1.0).tolist() == expected
    assert n_step_returns(R, DISCOUNT, V, LAST, 100).tolist() == expected


def test_lambda_half() -> None:
    """G_1 = 2 + .5 (.5 20 + .5 3) = 7.75;  G_0 = 1 + .5 (.5 10 + .5 7.75);  G_3 = 4 + .5 (.5 40 + .5 30)."""
    expected = [5.4375, 7.75, 3, 21.5, 30, 36]
    assert lambda_returns(R, DISCOUNT, V, LAST, 0.5).tolist() == expected
    assert advantages(R, DISCOUNT, torch.ones(6).double(), V, LAST, 0.5).tolist() == [g - 1 for g in expected]


def forward_view(t: int, lam: Tensor) -> float:
    """sum over n of the weights of the n-step returns (Sutton & Barto eq. 12.3), the last one taking what is left."""
    total, weight, n = 0.0, 1.0, 1
    while True:
        here = float(n_step_returns(R, DISCOUNT, V, LAST, n)[t])
        end = t + n - 1
        if end == len(R) - 1 or LAST[end]:
            return total + weight * here
        total += weight * (1 - float(lam[end])) * here
        weight *= float(lam[end])
        n += 1


@pytest.mark.parametrize("seed", range(5))
def test_lambda_returns_mix_n_step_returns(seed: int) -> None:
    """With another lambda at each step: the recursion against the weighted sum of n-step returns."""
    lam = torch.from_numpy(np.random.default_rng(seed).random(6))
    found = lambda_returns(R.expand(2, 6), DISCOUNT.expand(2, 6), V.expand(2, 6), LAST.expand(2, 6), lam.expand(2, 6))
    expected = torch.tensor([forward_view(t, lam) for t in range(6)], dtype=torch.float64)
    torch.testing.assert_close(found, expected.expand(2, 6))


def test_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="n = 0, expected 1 or more"):
        n_step_returns(R, DISCOUNT, V, LAST, 0)
