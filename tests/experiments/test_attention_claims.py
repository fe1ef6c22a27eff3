"""The experiments on attention at small sizes, and the mathematics that they compare with, found another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from experiments import attention_cost, constant_memory, nadaraya_watson, scaling
from experiments.claim import Setting


@pytest.fixture
def setting() -> Setting:
    return Setting(seed=1, device=torch.device("cpu"))


def normals(s: float, n: int, samples: int = 200_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Entropy and 1 - sum p^2 of drawn softmaxes, [samples] each."""
    draws = torch.Generator().manual_seed(0)
    p = (s * torch.randn(samples, n, generator=draws, dtype=torch.float64)).softmax(dim=1)
    return torch.special.entr(p).sum(dim=1), 1 - p.square().sum(dim=1)


@pytest.mark.parametrize(("s", "n"), [(0.5, 2), (1.0, 16), (3.0, 8), (12.0, 4)])
def test_the_integrals_equal_the_means_of_many_draws(s: float, n: int) -> None:
    exact = scaling.softmax_of_normals(s, n)
    for value, drawn in zip(exact, normals(s, n), strict=True):
        error = float(drawn.std()) / math.sqrt(len(drawn))
        assert value == pytest.approx(float(drawn.mean()), abs=5 * error)


def test_the_integrals_equal_their_expansion_for_small_logits() -> None:
    """Entropy log n - s^2 (1 - 1/n) / 2, and 1 - sum p^2 = (1 - 1/n) (1 - s^2 / n), up to s^4."""
    s, n = 0.05, 32
    entropy, gradient = scaling.softmax_of_normals(s, n)
    assert entropy == pytest.approx(math.log(n) - s**2 / 2 * (1 - 1 / n), abs=1e-5)
    assert gradient == pytest.approx((1 - 1 / n) * (1 - s**2 / n), abs=1e-5)


def test_the_prediction_averages_over_the_length_of_a_query() -> None:
    """d = 2: |q|^2 is exponential, so that the mean over it is an integral anyone can do."""
    lengths = np.sqrt(-2 * np.log((np.arange(40) + 0.5) / 40))
    exact = np.array([scaling.softmax_of_normals(s, 8) for s in lengths]).mean(axis=0)
    found = scaling.predict(2, 8, divided=False)
    assert [found.entropy, found.gradient] == pytest.approx(list(exact), rel=0.01)


def test_scaling_at_small_sizes(setting: Setting) -> None:
    finding = scaling.compare(setting, widths=(4, 64), keys=16, queries=2000)
    assert list(finding.found) == list(scaling.CLAIM.stated)
    assert finding.found["variance / d, not divided"] == pytest.approx(1, abs=0.05)
    assert finding.found["entropy, measured - exact, at most (nats)"] < 0.05
    assert len(finding.rows) == 4


def test_attention_is_the_regression_of_statsmodels(setting: Setting) -> None:
    pytest.importorskip("statsmodels")
    finding = nadaraya_watson.compare(setting, points=40, places=9)
    assert finding.holds
    assert list(finding.found) == list(nadaraya_watson.CLAIM.stated)


def test_the_state_does_not_grow_and_the_cache_does(setting: Setting) -> None:
    finding = constant_memory.generate(setting, positions=(2, 8, 32, 64))
    found = finding.found
    assert list(found) == list(constant_memory.CLAIM.stated)
    assert found["bytes of state after 16384 tokens over after 4"] == 1
    assert found["bytes of the cache a token"] == 2 * 256 * 4
    assert found["tokens from which the cache is the larger"] == 17
    assert found["recurrent - parallel, at most"] < 1e-5


def test_slopes_are_those_of_least_squares() -> None:
    x, y = [2, 4, 8, 32], [1.0, 5.0, 9.0, 200.0]
    assert attention_cost.slope(x, y) == pytest.approx(np.polyfit(np.log(x), np.log(y), 1)[0])


def test_costs_are_counted_and_threads_given_back(setting: Setting) -> None:
    before = torch.get_num_threads()
    finding = attention_cost.measure(setting, lengths=(32, 64, 128, 512), repeats=1)
    assert torch.get_num_threads() == before
    assert list(finding.found) == list(attention_cost.CLAIM.stated)
    slopes = {row[0]: float(row[2]) for row in finding.rows}
    assert slopes["softmax"] == pytest.approx(2, abs=0.02)
    assert slopes["linear, elu"] == pytest.approx(1, abs=0.01)
    assert slopes["linear, softmax"] == pytest.approx(1, abs=0.01)
