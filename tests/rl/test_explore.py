"""Chance actions: how often, from whose coin."""

import pytest
import torch

from lab import streams
from rl.explore import epsilon_greedy, linear, stream_keys, world_keys

STEPS = 4000


def draws(epsilon: float, actions: int, keys: torch.Tensor) -> torch.Tensor:
    """Actions [STEPS, R, W]; the greedy one is the last."""
    q = torch.zeros(*keys.shape, actions)
    q[..., -1] = 1
    return torch.stack([epsilon_greedy(q, epsilon, keys, t) for t in range(STEPS)])


def test_frequencies_are_those_of_the_definition() -> None:
    """Each action epsilon / A, the greedy one 1 - epsilon more: chi-square over 40,000 draws, 3 degrees, p > 1e-4."""
    epsilon, A = 0.3, 4
    found = torch.bincount(draws(epsilon, A, streams.keys(0, "x", 2, 5)).flatten(), minlength=A).double()
    expected = torch.full((A,), epsilon / A).double()
    expected[-1] += 1 - epsilon
    expected *= found.sum()
    assert ((found - expected) ** 2 / expected).sum() < 21.1


def test_each_world_has_a_coin_of_its_own() -> None:
    """Two worlds leave the greedy path together as often as independent coins: epsilon^2, within 5 standard errors."""
    away = draws(0.5, 1000, streams.keys(1, "x", 2, 2)) != 999
    for other in ((0, 1), (1, 0), (1, 1)):
        both = (away[:, 0, 0] & away[:, *other]).double().mean()
        assert abs(both - 0.25) < 5 * (0.25 * 0.75 / STEPS) ** 0.5


def test_greedy_takes_the_first_of_equals_and_draws_nothing() -> None:
    q = torch.tensor([[[1.0, 3.0, 3.0], [2.0, 2.0, 0.0]]])
    assert epsilon_greedy(q, 0.0, streams.keys(0, "x", 1, 2), 7).tolist() == [[1, 0]]


def test_keys_of_a_world_do_not_depend_on_the_others() -> None:
    keys = stream_keys([5, 6, 7], "explore")
    assert torch.equal(world_keys(keys, 9)[1:2, :4], world_keys(stream_keys([6], "explore"), 4))
    assert len(set(world_keys(keys, 9).flatten().tolist())) == 27


def test_linear_schedule() -> None:
    assert [linear(1.0, 0.1, 9, step) for step in (0, 3, 9, 100)] == [1.0, pytest.approx(0.7), 0.1, 0.1]
    assert linear(1.0, 0.5, 0, 0) == 0.5
