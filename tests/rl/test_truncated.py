"""Truncated policy iteration: value iteration at one end, policy iteration at the other, the optimum everywhere."""

from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.catalog import load
from envs.world import World
from rl import dp
from rl.backup import Backup
from rl.sweeps import Sweeps
from rl.truncated import rounds, truncated_policy_iteration
from tests.oracles.dp import best_of_all, dense, one_hot, random_mdp


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), gamma=st.sampled_from([0.0, 0.5, 0.9, 0.99]), sweeps=st.sampled_from([1, 2, 5, 50])
)
def test_it_finds_the_best_of_all_policies_within_its_bound(seed: int, gamma: float, sweeps: int) -> None:
    mdp = random_mdp(seed, states=4, actions=3, outcomes=2)
    truth = best_of_all(mdp, gamma)
    rounding = 1e-14 * np.abs(truth).max() / (1 - gamma)
    for tolerance in (1e-2, 1e-10):
        found = truncated_policy_iteration(mdp, gamma, sweeps, tolerance)
        assert np.abs(found.values.numpy() - truth).max() <= tolerance + rounding
        assert np.abs(found.values.numpy() - truth).max() <= found.error + rounding


def test_with_one_sweep_it_is_value_iteration_sweep_for_sweep() -> None:
    mdp = random_mdp(5, states=30, actions=4, outcomes=3)
    sweeps = Sweeps(Backup(mdp, 0.9))
    for v, best in islice(rounds(Backup(mdp, 0.9), 1), 60):
        np.testing.assert_array_equal(v, sweeps.values)
        sweeps.sweep()
        np.testing.assert_array_equal(best, sweeps.values)


def test_with_many_sweeps_it_is_policy_iteration_policy_for_policy() -> None:
    """Howard's method written out with dense solves, from the policy that is greedy for v = 0."""
    mdp = random_mdp(6, states=30, actions=4, outcomes=3)
    chosen = mdp.expected_reward().argmax(1).numpy()
    improvements = 0
    for v, _ in islice(rounds(Backup(mdp, 0.9), 400), 1, 12):
        P, r = dense(mdp, one_hot(chosen, 4))
        solved = np.linalg.solve(np.eye(30) - 0.9 * P, r)
        np.testing.assert_allclose(v, solved, rtol=0, atol=1e-11)
        q = Backup(mdp, 0.9).rows(np.arange(30), solved)
        improvements += bool((q.argmax(1) != chosen).any())
        chosen = q.argmax(1)
    assert improvements >= 2  # or else nothing was tested
    np.testing.assert_allclose(solved, dp.policy_iteration(mdp, 0.9).values.numpy(), rtol=0, atol=1e-11)


def test_an_evaluation_in_between_is_that_many_sweeps_of_its_policy() -> None:
    mdp = random_mdp(7, states=12, actions=3, outcomes=2)
    v = np.zeros(12)
    for found, _ in islice(rounds(Backup(mdp, 0.8), 3), 8):
        np.testing.assert_allclose(found, v, rtol=0, atol=1e-13)
        each = [dense(mdp, one_hot([a] * 12, 3)) for a in range(3)]
        chosen = np.argmax([r + 0.8 * P @ v for P, r in each], axis=0)
        P, r = dense(mdp, one_hot(chosen, 3))
        for _ in range(3):
            v = r + 0.8 * P @ v


def test_what_it_counts() -> None:
    mdp = random_mdp(8, states=10, actions=3, outcomes=2)
    one, ten = (truncated_policy_iteration(mdp, 0.9, sweeps) for sweeps in (1, 10))
    assert ten.iterations < one.iterations / 5
    assert one.backups == (one.iterations + 1) * 30
    assert ten.backups == (ten.iterations + 1) * 30 + ten.iterations * 9 * 10
    values = dp.value_iteration(mdp, 0.9)
    assert 60 < values.backups <= values.iterations * 30  # states without news are left out
    policies = dp.policy_iteration(mdp, 0.9)
    assert policies.backups == (policies.iterations + 1) * 30


@pytest.mark.parametrize("name", ["cliff", "gambler", "windy-stochastic", "maze", "FrozenLake-v1"])
def test_named_worlds_and_small_values_far_away(name: str) -> None:
    world = load(name)
    assert isinstance(world, World)
    for sweeps in (1, 7):
        found = truncated_policy_iteration(world.mdp, world.discount, sweeps)
        truth = dp.policy_iteration(world.mdp, world.discount).values
        np.testing.assert_allclose(found.values.numpy(), truth.numpy(), rtol=1e-8, atol=1e-9)
        followed = dp.evaluate_exactly(world.mdp, found.policy, world.discount)
        np.testing.assert_allclose(followed.numpy(), truth.numpy(), rtol=1e-8, atol=1e-9)


def test_values_too_small_for_the_tolerance_are_right_to_their_digits() -> None:
    world = load("random-walk-19")
    assert isinstance(world, World)
    found = truncated_policy_iteration(world.mdp, 0.1, tolerance=1e-3).values.numpy()
    np.testing.assert_allclose(found, dp.policy_iteration(world.mdp, 0.1).values.numpy(), rtol=2e-3, atol=1e-30)


def test_what_cannot_be_is_said_in_one_line() -> None:
    mdp = random_mdp(1, states=3, actions=2, outcomes=1)
    with pytest.raises(dp.DPError, match="sweeps is 0, expected at least 1"):
        truncated_policy_iteration(mdp, 0.9, 0)
    with pytest.raises(dp.DPError, match=r"gamma 0\.9 with 5 sweeps still changes by .* after 2 improvements"):
        truncated_policy_iteration(mdp, 0.9, improvements=2)
    with pytest.raises(dp.DPError, match="gamma is 2"):
        truncated_policy_iteration(mdp, 2.0)
