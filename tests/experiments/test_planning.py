"""Robbins-Monro's and Zhao's numbers: small runs, rules tried both ways, and tables against dense solves."""

import math

import numpy as np
import pytest
import torch

from envs.catalog import load
from envs.world import World
from experiments import robbins_monro, zhao_values
from experiments.claim import Finding, Setting
from rl import dp
from tests.oracles.dp import dense_value, one_hot

SETTING = Setting(seed=0, device=torch.device("cpu"))


@pytest.fixture(scope="module")
def zhao() -> Finding:
    return zhao_values.compare(SETTING, replicas=1, steps=5_000)


@pytest.fixture(scope="module")
def world() -> World:
    found = load("zhao-5x5", {"reward.forbidden": -10})
    assert isinstance(found, World)
    return found


def test_robbins_monro_at_a_small_size() -> None:
    found = robbins_monro.compare(SETTING, runs=300, steps=400)
    assert list(found.found) == list(robbins_monro.CLAIM.stated)
    mean, _, cube, _, short, wander, blown = found.found.values()
    assert abs(float(mean) - 1) < 0.05
    assert abs(float(cube) - robbins_monro.ROOT) < 0.01
    assert float(short) > robbins_monro.SHORT
    assert float(wander) == pytest.approx(0.35, abs=0.06)
    assert float(blown) > 0.95
    assert all(len(row) == len(found.header) for row in found.rows)
    assert found.found == robbins_monro.compare(SETTING, runs=300, steps=400).found


def test_the_rule_of_robbins_monro() -> None:
    good = [1.001, 0.97, 1.7102, 0.243, 1.6, 0.355, 0.99]
    bad = [[1.02], [0.9, 1.1], [1.69], [0.22, 0.27], [1.2], [0.29, 0.4], [0.4, math.nan]]
    assert robbins_monro.judge(*good)
    for i, values in enumerate(bad):
        for value in values:
            assert not robbins_monro.judge(*good[:i], value, *good[i + 1 :])


def test_steps_without_noise_overshoot_as_the_docstring_says() -> None:
    w, walked = torch.zeros(1).double(), []
    for k in (1, 2):
        w = w - robbins_monro.cube(w) / k
        walked.append(float(w))
    assert walked == [5.0, -55.0]


def test_zhao_at_a_small_size(zhao: Finding) -> None:
    assert list(zhao.found) == list(zhao_values.CLAIM.stated)
    assert all(len(row) == len(zhao.header) for row in zhao.rows)
    assert zhao.found["epsilon 0.1: first row of values"] == "0.4 0.5 0.9 1.3 1.4"
    assert not zhao.holds  # learned from so little
    assert zhao_values.judge(*list(zhao.found.values())[:6], 0.01, *list(zhao.found.values())[7:])


def test_the_rule_of_zhao() -> None:
    first, second = "3.5 3.9 4.3 4.8 5.3", "0.4 0.5 0.9 1.3 1.4"
    good = [first, second, 25, 20, 20, 0.1, 0.01, 2.0, 2.0]
    bad = [[second], [first], [24], [25], [25], [0.0, -1.0], [0.06], [1.0], [0.9]]
    assert zhao_values.judge(*good)
    for i, values in enumerate(bad):
        for value in values:
            assert not zhao_values.judge(*good[:i], value, *good[i + 1 :])


def test_no_epsilon_greedy_policy_near_the_best_one_is_better(world: World) -> None:
    """Every policy that differs from it in one state, all solved: nowhere better in any state."""
    for epsilon in (0.2, 0.5):
        best = dp.policy_iteration(world.mdp, 0.9, epsilon)
        truth = dense_value(world.mdp, epsilon / 5 + (1 - epsilon) * one_hot(best.policy, 5), 0.9)
        np.testing.assert_allclose(best.values.numpy(), truth, atol=1e-9)
        others = best.policy.repeat(125, 1)
        others[torch.arange(125), torch.arange(125) // 5] = torch.arange(125) % 5
        odds = epsilon / 5 + (1 - epsilon) * torch.from_numpy(one_hot(others, 5))
        assert (dp.evaluate_exactly(world.mdp, odds, 0.9).numpy() <= truth + 1e-9).all()


def test_what_is_learned_is_worth_what_is_best(world: World) -> None:
    """Two replicas of 40,000 steps at epsilon 0.5: every value to 0.02, of values down to -9."""
    best = dp.policy_iteration(world.mdp, 0.9, 0.5).values
    found = zhao_values.learned(SETTING, world, 0.5, replicas=2, steps=40_000)
    assert float((found - best).abs().max()) < 0.02


def test_planners_are_told_apart(world: World) -> None:
    planners = {planner.name: planner for planner in zhao_values.plan(world)}
    assert planners["value iteration"].rounds > planners["truncated, 3 sweeps"].rounds
    assert planners["truncated, 3 sweeps"].rounds > planners["truncated, 100 sweeps"].rounds
    assert planners["prioritised sweeping"].backups < planners["value iteration"].backups
