"""Chance actions: how often, from whose coin."""

import pytest
import torch

from lab import streams
from rl.explore import EpsilonGreedy, best_at_random, greedy_odds, linear, sample, stream_keys, world_keys

STEPS = 4000


def draws(epsilon: float, actions: int, seeds: list[int], worlds: int) -> torch.Tensor:
    """Actions [STEPS, R, W]; the greedy one is the last."""
    explorer = EpsilonGreedy(seeds, (epsilon, epsilon), 1)
    q = torch.zeros(len(seeds), worlds, actions)
    q[..., -1] = 1
    return torch.stack([explorer.act(q, t) for t in range(STEPS)])


def chi_square(found: torch.Tensor, odds: torch.Tensor) -> float:
    count = torch.bincount(found.flatten(), minlength=len(odds)).double()
    expected = odds.double() * count.sum()
    return float(((count - expected) ** 2 / expected).sum())


def test_frequencies_are_those_of_the_definition() -> None:
    """Each action epsilon / A, the greedy one 1 - epsilon more: chi-square over 40,000 draws, 3 degrees, p > 1e-4."""
    odds = torch.tensor([0.075, 0.075, 0.075, 0.775])
    assert chi_square(draws(0.3, 4, [0, 1], 5), odds) < 21.1
    explorer = EpsilonGreedy([0], (0.3, 0.3), 1)
    torch.testing.assert_close(explorer.odds(torch.tensor([0.0, 0.0, 0.0, 1.0]), 0), odds)


def test_each_world_has_a_coin_of_its_own() -> None:
    """Two worlds leave the greedy path together as often as independent coins: epsilon^2, within 5 standard errors."""
    away = draws(0.5, 1000, [1, 2], 2) != 999
    for other in ((0, 1), (1, 0), (1, 1)):
        both = (away[:, 0, 0] & away[:, *other]).double().mean()
        assert abs(both - 0.25) < 5 * (0.25 * 0.75 / STEPS) ** 0.5


def test_equals_are_taken_equally_often() -> None:
    """Of [1 3 3 0 3] the three best, a third each: 6,000 draws, 2 degrees of freedom, p > 1e-4; and with epsilon."""
    q = torch.tensor([1.0, 3.0, 3.0, 0.0, 3.0]).expand(1, 6000, 5)
    chance = streams.uniform(streams.keys(0, "x", 1, 6000), 0)
    found = best_at_random(q, chance)
    assert set(found.flatten().tolist()) == {1, 2, 4}
    assert chi_square(torch.bucketize(found, torch.tensor([1, 2, 4])), torch.full((3,), 1 / 3)) < 18.4
    torch.testing.assert_close(
        greedy_odds(q[0, 0], 0.5), torch.tensor([0.1, 0.1 + 1 / 6, 0.1 + 1 / 6, 0.1, 0.1 + 1 / 6])
    )


def test_a_sample_has_the_probabilities_given_and_never_what_has_none() -> None:
    odds = torch.tensor([0.0, 0.2, 0.0, 0.5, 0.3, 0.0])
    chance = streams.uniform(streams.keys(0, "x", 20_000), 0)
    found = sample(odds.expand(20_000, 6), chance)
    assert set(found.tolist()) == {1, 3, 4}
    assert chi_square(torch.bucketize(found, torch.tensor([1, 3, 4])), odds[odds > 0]) < 18.4
    ends = torch.tensor([0.0, 1 - 2**-24])
    assert sample(odds.expand(2, 6), ends).tolist() == [1, 4]


def test_keys_of_a_world_do_not_depend_on_the_others() -> None:
    keys = stream_keys([5, 6, 7], "explore")
    assert torch.equal(world_keys(keys, 9)[1:2, :4], world_keys(stream_keys([6], "explore"), 4))
    assert len(set(world_keys(keys, 9).flatten().tolist())) == 27


def test_linear_schedule() -> None:
    assert [linear(1.0, 0.1, 9, step) for step in (0, 3, 9, 100)] == [1.0, pytest.approx(0.7), 0.1, 0.1]
    assert linear(1.0, 0.5, 0, 0) == 0.5
