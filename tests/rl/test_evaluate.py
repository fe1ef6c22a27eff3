"""Statistics against scipy and closed forms; evaluation against dense solves and hand-played episodes."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.catalog import load
from envs.world import World
from rl import dp
from rl.evaluate import ci95, evaluate, iqm, play
from rl.tabular.q_learning import QLearning
from tests.oracles.dp import dense_value, one_hot


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_iqm_is_the_trimmed_mean_of_scipy(scores: list[float]) -> None:
    found = float(iqm(torch.tensor(scores, dtype=torch.float64)))
    assert found == pytest.approx(scipy.stats.trim_mean(scores, 0.25), rel=1e-12, abs=1e-9)


def test_bootstrap_interval_of_two_values_has_a_closed_form() -> None:
    """Scores 0 0 1 1 drawn again hold b ones, b ~ Binomial(4, 1/2), and their iqm is (b - 1) / 2 cut to [0, 1].

    P(b <= 1) = P(b >= 3) = 5/16 > 2.5%, so the interval is exactly [0, 1]. With all scores equal it has no width.
    """
    assert ci95(torch.tensor([0.0, 0.0, 1.0, 1.0]).double(), seed=0) == (0.0, 1.0)
    assert ci95(torch.full((9,), 3.0).double(), seed=0) == (3.0, 3.0)


def test_bootstrap_interval_agrees_with_scipy_on_many_runs() -> None:
    scores = np.random.default_rng(0).normal(size=50)
    theirs = scipy.stats.bootstrap(
        (scores,),
        lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis=axis),
        n_resamples=5000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    np.testing.assert_allclose(ci95(torch.from_numpy(scores), seed=0), theirs, atol=0.02)  # its width is about 0.6


def test_bootstrap_is_stratified_by_task_and_a_function_of_its_seed() -> None:
    """Two tasks of one level each, far apart: resampling within tasks gives no width, resampling over all would."""
    scores = torch.stack([torch.zeros(6), torch.ones(6)], dim=1).double()
    assert ci95(scores, seed=0) == (0.5, 0.5)
    noise = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ci95(noise, seed=3) == ci95(noise, seed=3) != ci95(noise, seed=4)


def world(name: str) -> World:
    found = load(name)
    assert isinstance(found, World)
    return found


def with_tables(found: World, q: torch.Tensor, gamma: float = 0.9) -> QLearning:
    """An agent of R replicas whose action values are `q` [R, S, A]."""
    agent = QLearning(
        *q.shape[1:], list(range(len(q))), gamma=gamma, alpha=1.0, omega=0.0, epsilon=(1.0, 1.0), epsilon_steps=1
    )
    agent.q.value.copy_(q)
    return agent


def test_tables_are_judged_exactly() -> None:
    lake = world("FrozenLake-v1")
    q = torch.rand(5, 16, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q[2] = dp.value_iteration(lake.mdp, 0.9).q
    found = evaluate(with_tables(lake, q), lake, gamma=0.9, observation="index", seed=0, episodes=0)
    start = lake.mdp.start.numpy()
    truth = [start @ dense_value(lake.mdp, one_hot(one.argmax(-1), 4), 0.9) for one in q]
    np.testing.assert_allclose(found.returns.numpy(), truth, atol=1e-12)
    assert found.optimal_return == pytest.approx(truth[2], abs=1e-9)
    assert found.gap == pytest.approx(truth[2] - scipy.stats.trim_mean(truth, 0.25), abs=1e-9)
    assert found.episode_returns is None
    assert found.ci95[0] <= found.iqm <= found.ci95[1]


def test_played_episodes_approach_the_undiscounted_value_within_the_limit() -> None:
    """FrozenLake's episodes end after 100 steps: 1,000 of them, 5 standard errors."""
    lake = world("FrozenLake-v1")
    q = dp.value_iteration(lake.mdp, 0.99).q.unsqueeze(0)
    agent = with_tables(lake, q)
    exact = dp.policy_evaluation(lake.mdp, q.argmax(-1), 1.0, sweeps=100)[0] @ lake.mdp.start
    found = play(agent, lake, gamma=1.0, observation="index", seed=0, episodes=1000)
    assert abs(float(found.total.mean() - exact)) < 5 * math.sqrt(0.25 / 1000)


def test_undiscounted_policies_that_never_end_are_judged_within_the_time_limit() -> None:
    """Always up on the cliff walk: 100 bumps within a limit of 100; no limit: -inf. The optimum is -13 either way."""
    q = torch.zeros(1, 1, 4, dtype=torch.float64)
    for limit, value in ((100, -100.0), (None, -math.inf)):
        cliff = load("cliff", {"time_limit": limit} if limit else {})
        assert isinstance(cliff, World)
        up = cliff.action_names.index("up")
        table = q.expand(1, cliff.mdp.states, 4).clone()
        table[..., up] = 1
        found = evaluate(with_tables(cliff, table), cliff, gamma=1.0, observation="index", seed=0, episodes=0)
        assert cliff.time_limit == limit
        assert found.iqm == value
        assert found.optimal_return == -13


def test_a_world_without_a_table_needs_episodes() -> None:
    pole = load("CartPole-v1")
    with pytest.raises(ValueError, match="CartPole-v1: it has no table; expected episodes >= 1 to judge by, not 0"):
        evaluate(
            with_tables(world("cliff"), torch.zeros(1, 2, 2)), pole, gamma=1.0, observation="index", seed=0, episodes=0
        )
