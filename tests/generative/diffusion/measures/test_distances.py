"""The distances against closed forms, scipy's matrix root, brute force over subsets and neighbours, and repetition."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor

from generative.diffusion.measures.distances import cover, frechet, frechet_gaussians, kernel


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_covariance(seed: int, d: int, rank: int) -> Tensor:
    factor = draws(seed, d, rank)
    return factor @ factor.T


def test_the_frechet_distance_of_known_gaussians():
    """Diagonal covariances: sum (m - m')^2 + (s - s')^2, and the same seen from a turned frame."""
    means, deviations = draws(0, 2, 5), draws(1, 2, 5).abs()
    truth = (means[0] - means[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    turn = torch.linalg.qr(draws(2, 5, 5)).Q
    for frame in (torch.eye(5, dtype=torch.float64), turn):
        m, n = means @ frame.T
        s, t = (frame @ deviation.square().diag() @ frame.T for deviation in deviations)
        assert frechet_gaussians(m, s, n, t) == pytest.approx(truth.item(), rel=1e-12)


@pytest.mark.parametrize(("one", "other"), [(6, 6), (6, 2), (2, 3), (1, 1)])
def test_the_frechet_distance_equals_scipys_matrix_root_at_any_rank(one: int, other: int):
    """scipy's root of a singular product is a perturbation of the truth, so a small multiple of I is added for it."""
    s, t = random_covariance(3, 6, one), random_covariance(4, 6, other)
    small = 0.0 if one == other == 6 else 1e-9
    eye = small * np.eye(6)
    root = linalg.sqrtm((s.numpy() + eye) @ (t.numpy() + eye)).real
    truth = s.trace() + t.trace() - 2 * np.trace(root)
    zero = torch.zeros(6, dtype=torch.float64)
    assert frechet_gaussians(zero, s, zero, t) == pytest.approx(truth.item(), rel=1e-10 if not small else 1e-4)


@pytest.mark.parametrize(("n", "m", "precision"), [(40, 50, 1e-10), (5, 4, 1e-7)])
def test_the_frechet_distance_of_clouds_by_the_nuclear_norm(n: int, m: int, precision: float):
    """With centred clouds A, B: Tr (S S')^(1/2) is the sum of the singular values of A B^T over its counts.

    With fewer rows than features, eigenvalues of 0 are rounded to 1e-16, whose roots count.
    """
    x, y = draws(5, n, 8), 2 * draws(6, m, 8) + 1
    a, b = (z - z.mean(0) for z in (x, y))
    overlap = torch.linalg.svdvals(a @ b.T).sum() / ((n - 1) * (m - 1)) ** 0.5
    truth = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() / (n - 1) + b.square().sum() / (m - 1)
    assert frechet(x, y) == pytest.approx((truth - 2 * overlap).item(), rel=precision)
    assert frechet(x, x) == pytest.approx(0, abs=1e-5)
    assert frechet(x.float(), y.float()) == pytest.approx(frechet(x, y), rel=1e-5)
    assert frechet(x[:, :1], y[:, :1]) > 0  # one feature


def polynomial(x: Tensor, y: Tensor) -> float:
    return ((x @ y).item() / len(x) + 1) ** 3


def discrepancy(x: Tensor, y: Tensor) -> float:
    """Gretton et al. 2012, eq. 3, term by term."""
    n, m = len(x), len(y)
    within = sum(polynomial(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(polynomial(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within + other - 2 * sum(polynomial(a, b) for a in x for b in y) / (n * m)


def test_the_kernel_distance_equals_its_sum_and_its_jackknife():
    x, y = draws(7, 6, 3), draws(8, 5, 3) + 0.5
    found = kernel(x, y)
    assert found.value == pytest.approx(discrepancy(x, y), rel=1e-10)
    without_x = np.array([discrepancy(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(6)])
    without_y = np.array([discrepancy(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(5)])
    variance = 5 * without_x.var() + 4 * without_y.var()
    assert found.error == pytest.approx(variance**0.5, rel=1e-8)


def test_the_kernel_distance_is_unbiased_over_all_subsets():
    """Over all pairs of subsets of a finite population, the mean is the discrepancy of the populations, exactly."""
    x, y = draws(9, 6, 4), draws(10, 6, 4) + 0.3
    subsets = [list(members) for members in combinations(range(6), 3)]
    found = [kernel(x[one], y[other]).value for one in subsets for other in subsets]
    assert np.mean(found) == pytest.approx(discrepancy(x, y), rel=1e-9)


def test_the_standard_error_is_the_spread_over_repetitions():
    """400 pairs of clouds that are apart: the jackknife's error is, in the root mean square, within 15% of the spread.

    The spread itself is known to 3.5% (one over the root of 2 * 400), so that the margin is four such errors.
    """
    found = [kernel(draws(2 * i, 40, 3), draws(2 * i + 1, 40, 3) + 1) for i in range(100, 500)]
    spread = np.std([one.value for one in found])
    assert np.mean([one.error**2 for one in found]) ** 0.5 == pytest.approx(spread, rel=0.15)


def test_large_clouds_are_summed_in_blocks(monkeypatch: pytest.MonkeyPatch):
    x, y = draws(11, 50, 3), draws(12, 45, 3)
    before = kernel(x, y), cover(x, y)
    monkeypatch.setattr("generative.diffusion.measures.distances.BLOCK", 7)
    after = kernel(x, y), cover(x, y)
    assert after[0].value == pytest.approx(before[0].value, rel=1e-9)
    assert after[0].error == pytest.approx(before[0].error, rel=1e-9)
    assert after[1] == before[1]


def test_precision_and_recall_by_brute_force():
    data, samples = draws(13, 30, 2), 0.3 * draws(14, 25, 2)
    found = cover(data, samples, neighbour=2)

    def among(points: Tensor, cloud: Tensor) -> float:
        reach = [sorted((a - b).norm().item() for b in cloud)[2] for a in cloud]  # the first is 0, to itself
        inside = [any((p - c).norm() <= r for c, r in zip(cloud, reach, strict=True)) for p in points]
        return float(np.mean(inside))

    assert (found.precision, found.recall) == (among(samples, data), among(data, samples))
    assert found.precision > found.recall  # narrow samples lie among the data, and leave much of it out


def test_precision_and_recall_of_what_is_alike_and_apart():
    x = draws(15, 40, 2)
    alike, apart, half = cover(x, x), cover(x, x + 100), cover(x, torch.cat([x[:20], x[:20] + 100]))
    assert (alike.precision, alike.recall) == (1, 1)
    assert (apart.precision, apart.recall) == (0, 0)
    assert half.precision == 0.5


def test_what_cannot_be_compared_is_refused():
    x = draws(16, 5, 3)
    for distance in (frechet, kernel, cover):
        with pytest.raises(ValueError, match=r"shapes \(5, 3\) and \(1, 3\); .* at least"):
            distance(x, x[:1])
        with pytest.raises(ValueError, match="not finite"):
            distance(x, x / 0)
