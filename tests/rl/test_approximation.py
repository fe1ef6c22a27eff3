"""Robbins-Monro: against plain loops, against means, and against moments and limits that are known exactly."""

import math
from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from lab import streams
from rl import approximation
from rl.approximation import power, robbins_monro


def last(paths: object, steps: int) -> Tensor:
    *_, w = islice(paths, steps)  # type: ignore[call-overload]
    return w


def test_it_is_the_recursion_of_the_paper_in_plain_numbers() -> None:
    keys = torch.tensor([5, 6])
    paths = robbins_monro(
        approximation.noisy(torch.tanh, keys, 0.5), torch.tensor([3.0, -1.0]).double(), power(2.0, 0.7)
    )
    plain = [3.0, -1.0]
    for k, w in enumerate(islice(paths, 30), start=1):
        noise = streams.normal(keys, k).tolist()
        plain = [x - 2 / k**0.7 * (math.tanh(x) + 0.5 * n) for x, n in zip(plain, noise, strict=True)]
        np.testing.assert_allclose(w.numpy(), plain, rtol=1e-13)


def test_a_run_does_not_depend_on_who_rides_along() -> None:
    keys, first = streams.keys(0, "noise", 7), torch.zeros(7, dtype=torch.float64)
    law = power(1.0, 1.0, offset=10)
    all_of_them = last(robbins_monro(approximation.noisy(lambda w: w**3 - 5, keys, 1.0), first, law), 200)
    some = last(robbins_monro(approximation.noisy(lambda w: w**3 - 5, keys[2:4], 1.0), first[2:4], law), 200)
    assert torch.equal(some, all_of_them[2:4])


def test_with_steps_of_1_over_k_it_is_the_mean_exactly() -> None:
    """Samples whose running means are whole numbers that differ by powers of two: no rounding, so equal to the bit."""
    means = np.array([3, 5, 4, 8, 7, 7, 5, 21, 23, 19, 3, 4]).astype(float)
    k = np.arange(1, 13)
    x = np.diff(np.concatenate([[0.0], means * k]))
    assert [x[: i + 1].mean() for i in range(12)] == means.tolist()
    observed = approximation.samples(torch.from_numpy(x)[:, None])
    paths = robbins_monro(observed, torch.tensor([99.0]).double(), power(1.0, 1.0))
    for mean, w in zip(means, paths, strict=False):
        assert float(w) == mean
    real = torch.randn(500, 3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = last(robbins_monro(approximation.samples(real), torch.zeros(3, 2).double(), power(1.0, 1.0)), 500)
    torch.testing.assert_close(found, real.mean(0), rtol=1e-13, atol=1e-14)
    with pytest.raises(IndexError):
        last(robbins_monro(approximation.samples(real), torch.zeros(3, 2).double(), power(1.0, 1.0)), 501)


def test_the_moments_of_the_linear_process_are_those_of_many_runs() -> None:
    """4,000 runs: the mean within 4 of its standard errors, the spread within 5% (its standard error is 1.1%)."""
    R, keys = 4000, streams.keys(3, "runs", 4000)
    for law in (power(1.0, 1.0), power(1.0, 2.0, offset=1), power(0.3, 0.0), power(2.0, 0.6)):
        paths = robbins_monro(
            approximation.noisy(lambda w: 0.8 * (w - 2), keys, 1.5), torch.full((R,), 7.0).double(), law
        )
        mean, variance = approximation.linear_moments(law, 5.0, 0.8, 1.5, 60)
        for k, w in enumerate(islice(paths, 60)):
            if k in (0, 5, 59):
                assert abs(float(w.mean() - 2 - mean[k])) < 4 * float(variance[k]) ** 0.5 / R**0.5
                assert float(w.std()) == pytest.approx(float(variance[k]) ** 0.5, rel=0.05)


def test_partial_sums_tell_the_laws_apart() -> None:
    n = 20_000
    first, squares = approximation.sums(power(1.0, 1.0), n)
    assert float(first[-1]) == pytest.approx(math.log(n) + 0.5772156649 + 1 / (2 * n), abs=1e-8)  # without end
    assert float(squares[-1]) == pytest.approx(math.pi**2 / 6 - 1 / n, abs=1e-8)
    first, squares = approximation.sums(power(1.0, 2.0), n)
    assert float(first[-1]) == pytest.approx(math.pi**2 / 6 - 1 / n, abs=1e-8)
    assert float(squares[-1]) == pytest.approx(math.pi**4 / 90, abs=1e-10)
    first, squares = approximation.sums(power(0.1, 0.0), 100)
    assert float(first[-1]) == pytest.approx(10)
    assert float(squares[-1]) == pytest.approx(1)
    assert power(3.0, 2.0, offset=4)(1) == 3 / 25


def test_limits_are_those_of_the_exact_moments() -> None:
    k = 200_000
    _, variance = approximation.linear_moments(power(2.0, 1.0, offset=7), 3.0, 1.1, 0.5, k)
    assert approximation.asymptotic_spread(2.0, 1.1, 0.5) == pytest.approx(math.sqrt(float(variance[-1]) * k), rel=1e-3)
    _, variance = approximation.linear_moments(power(0.3, 0.0), 3.0, 1.1, 0.5, 200)
    assert approximation.constant_spread(0.3, 1.1, 0.5) == pytest.approx(math.sqrt(float(variance[-1])), rel=1e-9)
    least = approximation.asymptotic_spread(1 / 1.1, 1.1, 0.5)
    assert least == pytest.approx(0.5 / 1.1)
    with pytest.raises(ValueError, match=r"is 0\.5, expected more than 1/2"):
        approximation.asymptotic_spread(1.0, 0.5, 1.0)
    with pytest.raises(ValueError, match="is 2, expected a number between 0 and 2"):
        approximation.constant_spread(1.0, 2.0, 1.0)


def test_mini_batches_are_unbiased_and_less_noisy_by_the_root_of_their_size() -> None:
    points = torch.rand(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 20 - 10
    keys, w = streams.keys(0, "batch", 1000), torch.zeros(1000, 2).double()
    for size in (1, 5, 50):
        seen = torch.stack([approximation.mini_batches(points, keys, size)(w, k) for k in (1, 2)])
        spread = points.std(0, correction=0) / size**0.5
        assert ((seen.mean((0, 1)) + points.mean(0)).abs() < 4 * spread / 2000**0.5).all()
        torch.testing.assert_close(seen.flatten(0, 1).std(0), spread, rtol=0.08, atol=0)
        assert abs(float(torch.corrcoef(seen[:, :, 0])[0, 1])) < 4 / 1000**0.5  # no point is handed on to the next step
