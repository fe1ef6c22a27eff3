"""Values against dense solves, against every policy there is, against printed tables."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.catalog import load
from envs.world import World
from rl import dp
from rl.chain import PolicyError
from tests.oracles.dp import best_of_all, dense_value, one_hot, random_mdp, table

ZHAO = """ 5.8 5.6 6.2 6.5 5.8
           6.5 7.2 8.0 7.2 6.5
           7.2 8.0 10. 8.0 7.2
           8.0 10. 10. 10. 8.0
           7.2 9.0 10. 9.0 8.1 """


def world(name: str) -> World:
    found = load(name)
    assert isinstance(found, World)
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gamma=st.sampled_from([0.0, 0.5, 0.9, 0.99]), outcomes=st.integers(1, 3))
def test_value_and_policy_iteration_find_the_best_of_all_policies(seed: int, gamma: float, outcomes: int) -> None:
    mdp = random_mdp(seed, states=4, actions=3, outcomes=outcomes)
    truth = best_of_all(mdp, gamma)
    by_values, by_policies = dp.value_iteration(mdp, gamma, tolerance=1e-11), dp.policy_iteration(mdp, gamma)
    np.testing.assert_allclose(by_values.values.numpy(), truth, rtol=0, atol=1e-10)
    np.testing.assert_allclose(by_policies.values.numpy(), truth, rtol=0, atol=1e-10)
    np.testing.assert_allclose(by_values.q.numpy(), by_policies.q.numpy(), rtol=0, atol=1e-10)
    assert torch.equal(by_values.q.argmax(-1), by_values.policy)


@pytest.mark.parametrize("name", ["zhao-5x5", "frozenlake-4x4", "four-rooms", "FrozenLake-v1"])
def test_the_optimal_policy_of_named_worlds_solves_the_linear_system(name: str) -> None:
    found = world(name)
    solution = dp.value_iteration(found.mdp, 0.9, tolerance=1e-11)
    truth = dense_value(found.mdp, one_hot(solution.policy, found.actions), 0.9)
    np.testing.assert_allclose(solution.values.numpy(), truth, rtol=0, atol=1e-10)
    np.testing.assert_allclose(dp.policy_iteration(found.mdp, 0.9).values.numpy(), truth, rtol=0, atol=1e-10)


def test_zhao_table_to_its_printed_digits() -> None:
    printed = np.array(ZHAO.split(), float)
    values = dp.value_iteration(world("zhao-5x5").mdp, 0.9).values.numpy()
    assert np.abs(values - printed).max() <= 0.05 + 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gamma=st.sampled_from([0.0, 0.9, 1.0]))
def test_batched_evaluation_equals_dense_solves(seed: int, gamma: float) -> None:
    mdp = random_mdp(seed, states=6, actions=3, outcomes=2, ending=0.4)
    rng = np.random.default_rng(seed)
    stochastic = rng.dirichlet(np.ones(3), size=(4, 6))
    found = dp.evaluate_exactly(mdp, torch.from_numpy(stochastic), gamma)
    assert found.shape == (4, 6)
    if gamma < 1 or found.isfinite().all():
        for one, values in zip(stochastic, found.numpy(), strict=True):
            np.testing.assert_allclose(values, dense_value(mdp, one, gamma), rtol=1e-9, atol=1e-9)
    chosen = torch.from_numpy(rng.integers(0, 3, (4, 6)))
    values = dp.evaluate_exactly(mdp, chosen, 0.9)
    for one, value in zip(chosen, values.numpy(), strict=True):
        np.testing.assert_allclose(value, dense_value(mdp, one_hot(one, 3), 0.9), rtol=0, atol=1e-10)
        np.testing.assert_allclose(value, dp.evaluate_exactly(mdp, one, 0.9).numpy(), rtol=1e-13, atol=1e-13)


def test_evaluation_by_sweeps_approaches_the_solve_at_the_rate_of_gamma() -> None:
    mdp = random_mdp(3, states=8, actions=2, outcomes=3, ending=0.0)
    policy = torch.full((8, 2), 0.5, dtype=torch.float64)
    exact = dp.evaluate_exactly(mdp, policy, 0.8)
    for sweeps in (0, 5, 40):
        error = (dp.policy_evaluation(mdp, policy, 0.8, sweeps) - exact).abs().max()
        assert error <= 0.8**sweeps * exact.abs().max() + 1e-12


def test_undiscounted_values_of_policies_that_never_end() -> None:
    """0 -> 1 -> end; 2 a free loop; 3 <-> 4 cost 1 a round; 5 a paying loop; 6 -> 3; 7 <-> 8 gain and lose; 9 -> 2."""
    rows = [
        [(1, -1.0, False)],
        [(0, -2.0, True)],
        [(2, 0.0, False)],
        [(4, -1.0, False)],
        [(3, 0.0, False)],
        [(5, 2.0, False)],
        [(3, 0.0, False)],
        [(8, 1.0, False)],
        [(7, -1.0, False)],
        [(2, -5.0, False)],
    ]
    mdp = table(rows, [0.1] * 10)
    inf = float("inf")
    found = dp.evaluate_exactly(mdp, torch.zeros(10, dtype=torch.int64), 1.0)
    torch.testing.assert_close(
        found, torch.tensor([-3, -2, 0, -inf, -inf, inf, -inf, float("nan"), float("nan"), -5]).double(), equal_nan=True
    )


def test_an_undiscounted_world_that_pays_for_ever_is_refused() -> None:
    mdp = table([[(0, 1.0, False)]], [1.0])
    with pytest.raises(dp.DPError, match=r"gamma 1.0 still changes by 1 after 50 sweeps .* infinite"):
        dp.value_iteration(mdp, 1.0, sweeps=50)
    with pytest.raises(dp.DPError, match=r"no finite value"):
        dp.policy_iteration(mdp, 1.0)
    with pytest.raises(dp.DPError, match=r"gamma is 1.5, expected"):
        dp.value_iteration(mdp, 1.5)
    with pytest.raises(PolicyError, match=r"expected \[S\] = \[1\]"):
        dp.evaluate_exactly(mdp, torch.zeros(2, dtype=torch.int64), 0.5)
    with pytest.raises(PolicyError, match=r"values from 3 to 3"):
        dp.evaluate_exactly(mdp, torch.full((1,), 3), 0.5)


def test_cliff_is_thirteen_steps_and_its_policies_agree_at_gamma_one() -> None:
    cliff = world("cliff")
    solution = dp.value_iteration(cliff.mdp, 1.0)
    assert float((solution.values * cliff.mdp.start).sum()) == -13.0
    assert torch.equal(dp.policy_iteration(cliff.mdp, 1.0).values, solution.values)


def test_finite_horizon_frozen_lake() -> None:
    """Best chance of the goal within 100 steps: 0.7442; the forward recursion of the policy says the same."""
    lake = world("FrozenLake-v1")
    solution = dp.finite_horizon(lake.mdp, 100)
    best = float((solution.values[-1] * lake.mdp.start).sum())
    assert round(best, 4) == 0.7442
    at, gained = lake.mdp.start.numpy().copy(), 0.0
    for left in range(100, 0, -1):
        after = np.zeros_like(at)
        for s, a in enumerate(solution.policy[left - 1].tolist()):
            for k in range(lake.mdp.outcomes):
                p = at[s] * float(lake.mdp.prob[s, a, k])
                gained += p * float(lake.mdp.reward[s, a, k])
                if not lake.mdp.terminated[s, a, k]:
                    after[int(lake.mdp.next_state[s, a, k])] += p
        at = after
    assert gained == pytest.approx(best, abs=1e-12)
