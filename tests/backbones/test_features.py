"""Features of linear approximation against their formulas in plain Python, numpy's polynomials and cut intervals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from backbones.features import Fourier, Polynomial, TileCoding


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("inputs", "order"), [(1, 5), (2, 3), (3, 2)])
def test_polynomial_and_fourier_are_the_printed_formulas(inputs: int, order: int):
    polynomial, fourier, x = Polynomial(inputs, order), Fourier(inputs, order), draw(4, 2, inputs)
    powers = list(itertools.product(range(order + 1), repeat=inputs))
    assert polynomial(x).shape == fourier(x).shape == (4, 2, len(powers)) == (4, 2, fourier.outputs)
    for at in itertools.product(range(4), range(2)):
        s = x[at].tolist()
        for i, c in enumerate(powers):
            product = math.prod(s_j**c_j for s_j, c_j in zip(s, c, strict=True))
            wave = math.cos(math.pi * sum(s_j * c_j for s_j, c_j in zip(s, c, strict=True)))
            assert polynomial(x)[at][i].item() == pytest.approx(product, abs=1e-14)
            assert fourier(x)[at][i].item() == pytest.approx(wave, abs=1e-14)


def test_rates_divide_by_the_length_of_the_frequency():
    rates = Fourier(2, 4).rates().tolist()
    for c, rate in zip(itertools.product(range(5), repeat=2), rates, strict=True):
        assert rate == pytest.approx(1 / math.hypot(*c) if any(c) else 1)


def test_least_squares_on_polynomial_features_finds_the_polynomial_numpy_finds():
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    y = torch.exp(-3 * x) + x**2
    found = torch.linalg.lstsq(Polynomial(1, 5)(x[:, None]), y[:, None]).solution[:, 0]
    np.testing.assert_allclose(found, np.polynomial.Polynomial.fit(x, y, 5).convert().coef, rtol=1e-6)


def test_fourier_features_are_the_cosine_transform():
    """At the midpoints of N cells they are the basis of the DCT-II: orthogonal, of norms N and N/2."""
    x = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    features = Fourier(1, 15)(x[:, None])
    expected = torch.diag(torch.tensor([16.0] + [8.0] * 15, dtype=torch.float64))
    torch.testing.assert_close(features.T @ features, expected, rtol=0, atol=1e-12)


def test_even_a_polynomial_at_zero_has_gradients():
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    Polynomial(2, 2)(x)[1].backward()  # s_2
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1]


@pytest.mark.parametrize(("inputs", "tiles", "tilings"), [(1, 4, 8), (2, 3, 8), (3, 2, 4), (2, 5, 1)])
def test_tiles_are_intervals_between_shifted_cuts(inputs: int, tiles: int, tilings: int):
    coding, x = TileCoding(inputs, tiles, tilings), draw(200, inputs)
    found = coding.indices(x)
    assert found.shape == (200, tilings)
    for i in range(tilings):
        index = np.full(200, i * (tiles + 1) ** inputs)
        for j in range(inputs):
            shift = i * (2 * j + 1) % tilings / tilings
            cuts = [(m + 1 - shift) / tiles for m in range(tiles)]  # tile m + 1 begins at cut m
            index += np.searchsorted(cuts, x[:, j].numpy(), side="right") * (tiles + 1) ** j
        np.testing.assert_array_equal(found[:, i], index)


def test_every_tiling_is_a_partition_and_the_sparse_form_is_the_dense_one():
    coding, x = TileCoding(2, 4, 8), torch.cat([draw(100, 2), torch.tensor([[0.0, 0], [1, 1], [0, 1], [-3, 7]])])
    dense = coding(x)
    assert torch.equal(dense.view(104, 8, 25).sum(-1), torch.ones(104, 8, dtype=torch.float64))
    weights = draw(coding.outputs, 3, seed=1)
    sparse = torch.nn.functional.embedding_bag(coding.indices(x), weights, mode="sum")
    torch.testing.assert_close(sparse, dense @ weights)


def test_tilings_differ_and_neighbours_share_all_but_one():
    """Moving by 1/m/tilings along one number leaves exactly one tiling's tile (Sutton & Barto 2018, fig. 9.9)."""
    coding = TileCoding(2, 4, 8)
    x = torch.tensor([0.4, 0.6], dtype=torch.float64)
    for j in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[j] = 1 / 4 / 8
        for n in range(1, 9):
            assert (coding.indices(x + n * step) != coding.indices(x)).sum() == n


def test_one_tiling_is_the_state_aggregation_of_the_random_walk():
    """Sutton & Barto 2018, example 9.1: 1000 states in 10 groups of 100; the best value of a group is its mean.

    The values solve the walk's Bellman equation: a jump of up to 100 states left or right, -1 and 1 at the ends.
    """
    n = 1000
    chance, reward = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64)
    for s in range(n):
        for jump in [*range(-100, 0), *range(1, 101)]:
            if 0 <= s + jump < n:
                chance[s, s + jump] += 1 / 200
            else:
                reward[s] += math.copysign(1 / 200, jump)
    value = torch.linalg.solve(torch.eye(n, dtype=torch.float64) - chance, reward)
    place = (torch.arange(n, dtype=torch.float64) / n)[:, None]  # in [0, 1)
    features = TileCoding(1, 10, 1)(place)[:, :10]
    weights = torch.linalg.lstsq(features, value[:, None]).solution[:, 0]
    torch.testing.assert_close(weights, value.view(10, 100).mean(1))
    # smooth features of as many weights come closer, polynomials and cosines alike (fig. 9.5 compares the two)
    for basis in (Polynomial(1, 9), Fourier(1, 9)):
        smooth = basis(place)
        error = smooth @ torch.linalg.lstsq(smooth, value[:, None]).solution[:, 0] - value
        assert error.square().mean() < (features @ weights - value).square().mean() / 10


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="0 tiles and 8 tilings: expected 1 or more"):
        TileCoding(2, 0, 8)
