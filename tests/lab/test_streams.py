"""Streams against an independent SplitMix64, the moments of their distributions, and their independence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab import streams

MASK = 2**64 - 1


def splitmix64(seed: int, count: int) -> list[int]:
    """The published generator in plain Python integers (Steele, Lea & Flood 2014, fig. 14)."""
    drawn = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & MASK
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        drawn.append(z ^ (z >> 31))
    return drawn


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_bits_are_splitmix64_at_any_index(key: int) -> None:
    ours = streams.bits(torch.tensor(key), torch.arange(20)).tolist()
    assert [value & MASK for value in ours] == splitmix64(key, 20)


@given(st.integers(min_value=-1, max_value=2**40))
def test_a_plain_integer_is_an_index_too(index: int) -> None:
    key = torch.tensor(12345)
    assert torch.equal(streams.bits(key, index), streams.bits(key, torch.tensor(index)))


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-1, 2**40))
def test_plain_integers_draw_what_tensors_draw(key: int, index: int) -> None:
    assert streams.bits_of(key, index) == streams.bits(torch.tensor(key), index).item()


def test_the_published_first_numbers_of_seed_1234567() -> None:
    """The sequence that Rosetta Code and the reference implementation in C print."""
    ours = [value & MASK for value in streams.bits(torch.tensor(1234567), torch.arange(3)).tolist()]
    assert ours == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_uniform_and_normal_pass_kolmogorov_smirnov() -> None:
    key = torch.tensor(streams.derive(0, "ks"))
    index = torch.arange(200_000)
    assert stats.kstest(streams.uniform(key, index).numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(streams.normal(key, index).numpy(), "norm").pvalue > 1e-3


def test_neighbouring_keys_are_uncorrelated() -> None:
    drawn = streams.normal(streams.keys(0, "world", 50)[:, None], torch.arange(20_000)).numpy()
    correlation = np.corrcoef(drawn)[np.triu_indices(50, 1)]
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_a_key_does_not_depend_on_its_neighbours() -> None:
    assert torch.equal(streams.keys(3, "world", 10, 4)[:2, :3], streams.keys(3, "world", 2, 3))
    assert streams.keys(3, "world", 10, 4)[7, 2].item() == streams.derive(3, "world", 7, 2)


def test_paths_that_look_alike_differ() -> None:
    paths = [("a", 1), ("a1",), ("a", "1"), ("a", 11), ("a", 1, 1), (1, "a"), ()]
    assert len({streams.derive(0, *path) for path in paths}) == len(paths)
    assert streams.derive(0, "a") != streams.derive(1, "a")


def test_generators_repeat_and_leave_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    first = torch.rand(5, generator=streams.generator(0, "x", 1))
    assert torch.equal(first, torch.rand(5, generator=streams.generator(0, "x", 1)))
    assert not torch.equal(first, torch.rand(5, generator=streams.generator(0, "x", 2)))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("draw", [streams.uniform, streams.normal])
def test_draws_are_elementwise(draw) -> None:  # type: ignore[no-untyped-def]  # a function of two
    keys, index = streams.keys(1, "r", 7), torch.arange(13)
    block = draw(keys[:, None], index)
    assert all(torch.equal(block[r], draw(keys[r], index)) for r in range(7))
