"""The experiments on attention at small sizes, and the mathematics that they compare with, found another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from backbones.attention import Cache
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


def test_every_number_counts_in_the_verdict_on_scaling() -> None:
    numbers = [1.01, 0.99, 0.1, 0.95, 0.01, 1.02]
    assert scaling.as_stated(numbers)
    spoiled = [(0.9, 1.1), (0.9, 1.1), (0.3,), (0.8,), (0.06,), (0.9, 1.1)]
    for place, values in enumerate(spoiled):
        for value in values:
            assert not scaling.as_stated([*numbers[:place], value, *numbers[place + 1 :]]), place


def test_every_difference_counts_in_the_verdict_on_regression() -> None:
    assert nadaraya_watson.as_stated([1e-15, 1e-11, 0.0])
    for place in range(3):
        assert not nadaraya_watson.as_stated([1e-9 if i == place else 0.0 for i in range(3)])


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
    assert found["step by step - parallel, both, at most"] < 1e-5


def test_what_is_alive_is_counted_once_and_no_longer_than_it_lives() -> None:
    before = constant_memory.alive()
    held = [torch.zeros(1000), torch.zeros(10, dtype=torch.int64)]
    held += [held[0][:7], held[0].view(10, 100)]  # of the same memory
    assert constant_memory.alive() - before == 4000 + 80
    held.clear()
    assert constant_memory.alive() == before


def test_a_cache_that_loses_a_position_is_found(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(layer: object, x: torch.Tensor, slots: int, old: object) -> Cache:
        return Cache(*(torch.zeros(1, constant_memory.HEADS, slots, 32) for _ in range(2)))

    monkeypatch.setattr(constant_memory, "larger_cache", forgetful)
    found = constant_memory.generate(setting, positions=(2, 8, 32, 64)).found
    assert found["step by step - parallel, both, at most"] > 0.01


def test_every_number_counts_in_the_verdict_on_memory() -> None:
    found = dict(zip(constant_memory.CLAIM.stated, (1.0, 2048.0, 17.0, 0.1, 0.6, 1e-6), strict=True))
    assert constant_memory.as_stated(found)
    spoiled = {
        **{"bytes of state after 16384 tokens over after 4": (1.01, 0.9), "bytes of the cache a token": (2047, 2049)},
        **{"tokens from which the cache is the larger": (16, 18), "slope of seconds a token, recurrent": (-0.2, 0.2)},
        **{"slope of seconds a token, cached, n >= 1024": (0.4,), "step by step - parallel, both, at most": (2e-4,)},
    }
    assert spoiled.keys() == found.keys()
    for name, values in spoiled.items():
        for value in values:
            assert not constant_memory.as_stated(found | {name: float(value)}), name


def test_slopes_are_those_of_least_squares() -> None:
    x, y = [2, 4, 8, 32], [1.0, 5.0, 9.0, 200.0]
    assert attention_cost.slope(x, y) == pytest.approx(np.polyfit(np.log(x), np.log(y), 1)[0])


def test_costs_are_counted_and_threads_given_back(setting: Setting) -> None:
    before = torch.get_num_threads()
    finding = attention_cost.measure(setting, lengths=(32, 64, 128, 512), repeats=1)
    assert torch.get_num_threads() == before
    assert list(finding.found) == list(attention_cost.CLAIM.stated)
    slopes = {row[0]: float(row[3]) for row in finding.rows}
    assert slopes["softmax"] == 2
    assert slopes["linear, elu"] == pytest.approx(1, abs=0.01)
    assert slopes["linear, softmax"] == pytest.approx(1, abs=0.01)


def test_a_kind_is_counted_as_its_products_are() -> None:
    """Two products for each pair: two operations for each of the features of every head."""
    assert attention_cost.count("softmax", lambda: None, 100) == 2 * 2 * 8 * 32 * 100 * 100


def test_every_slope_counts_in_the_verdict() -> None:
    slopes = {"softmax": 2.1, "linear, elu": 0.9, "linear, softmax": 1.2, "mixed chunks": 1.0}
    assert attention_cost.as_stated(slopes)
    for kind, of in slopes.items():
        for other in (of - 0.5, of + 0.5):
            assert not attention_cost.as_stated(slopes | {kind: other})
