"""Visits against the inverse of the fundamental matrix, against played episodes, and against loops over steps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from rl import dp
from rl.chain import PolicyError
from rl.occupancy import visits, visits_within
from tests.oracles.dp import dense, random_mdp, table


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), gamma=st.sampled_from([0.5, 0.95, 1.0]))
def test_visits_are_rows_of_the_fundamental_matrix(seed: int, gamma: float) -> None:
    mdp = random_mdp(seed, states=7, actions=3, outcomes=2, ending=0.4)
    policy = np.random.default_rng(seed).dirichlet(np.ones(3), size=7)
    P, _ = dense(mdp, policy)
    if gamma == 1 and np.abs(np.linalg.eigvals(P)).max() > 1 - 1e-6:
        return  # some episode never ends
    truth = mdp.start.numpy() @ np.linalg.inv(np.eye(7) - gamma * P)
    np.testing.assert_allclose(visits(mdp, torch.from_numpy(policy), gamma).numpy(), truth, rtol=1e-9, atol=1e-9)


def test_visits_of_played_episodes() -> None:
    world = envs.load("frozenlake-4x4")
    assert isinstance(world, envs.World)
    policy = dp.policy_iteration(world.mdp, 0.99).policy
    truth, rng = np.zeros(16), np.random.default_rng(0)
    prob, after, over = (t.numpy() for t in (world.mdp.prob, world.mdp.next_state, world.mdp.terminated))
    episodes = 3000
    for _ in range(episodes):
        s, ended = 0, False
        while not ended:
            truth[s] += 1 / episodes
            a = int(policy[s])
            k = rng.choice(prob.shape[2], p=prob[s, a])
            s, ended = int(after[s, a, k]), bool(over[s, a, k])
    found = visits(world.mdp, policy).numpy()
    assert np.abs(found - truth).max() < 1.0  # the largest is 18, its standard error 0.3
    assert abs(found.sum() - truth.sum()) < 4.0  # 48.7, its standard error 0.8


def test_a_loop_is_visited_for_ever_and_what_is_not_reached_never() -> None:
    """0 -> 1 -> 2 <-> 3, and 4 -> 0 where nothing begins."""
    rows = [[(1, 0.0, False)], [(2, 0.0, False)], [(3, 0.0, False)], [(2, 0.0, False)], [(0, 0.0, False)]]
    mdp = table(rows, [0.5, 0.5, 0.0, 0.0, 0.0])
    policy = torch.zeros(5, dtype=torch.int64)
    assert visits(mdp, policy).tolist() == [0.5, 1.0, float("inf"), float("inf"), 0.0]
    np.testing.assert_allclose(visits(mdp, policy, 0.5).tolist(), [0.5, 0.75, 0.5, 0.25, 0.0])
    assert visits_within(mdp, [policy] * 3).tolist() == [0.5, 1.0, 1.0, 0.5, 0.0]


def test_visits_under_the_plan_of_a_horizon_add_up_to_its_length() -> None:
    world = envs.load("frozenlake-4x4")
    assert isinstance(world, envs.World)
    plan = dp.finite_horizon(world.mdp, 12)
    found = visits_within(world.mdp, plan.policy.flip(0))
    at, total = world.mdp.start.numpy().copy(), np.zeros(16)
    for left in range(12, 0, -1):
        total += at
        P, _ = dense(world.mdp, np.eye(4)[plan.policy[left - 1].numpy()])
        at = at @ P
    np.testing.assert_allclose(found.numpy(), total, atol=1e-12)


def test_a_batch_of_policies_is_refused() -> None:
    mdp = table([[(0, 0.0, True)]], [1.0])
    with pytest.raises(PolicyError, match=r"\[2, 1\], a batch, expected one policy"):
        visits(mdp, torch.zeros(2, 1, dtype=torch.int64))
