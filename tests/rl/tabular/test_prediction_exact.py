"""Learners of a given policy's values against v_pi, by a linear solve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from envs.catalog import load
from envs.mdp import TabularMDP
from envs.simulator import Simulator
from envs.world import World
from rl import dp
from rl.agents import AGENTS, AgentError
from rl.evaluate import evaluate
from rl.tabular.lambda_return import OfflineLambdaReturn
from rl.tabular.n_step_td import NStepTD
from rl.tabular.prediction import TD0, Prediction
from rl.tabular.td_lambda import TDLambda, TrueOnlineTDLambda
from rl.train import TrainConfig, Trainer, world_keys
from rl.types import Predictor
from tests.oracles.dp import dense, dense_value, random_mdp
from tests.rl.tabular.test_prediction import GAMMA, agent, uniform

LEARNERS: list[tuple[type[Prediction], dict[str, Any], int, int, float]] = [
    (TD0, {}, 50, 400, 0.15),
    (NStepTD, {"n": 3}, 50, 400, 0.15),
    (TDLambda, {"lam": 0.6}, 50, 400, 0.15),
    (TrueOnlineTDLambda, {"lam": 0.6}, 50, 400, 0.15),
    (OfflineLambdaReturn, {"lam": 0.6}, 2, 300, 0.6),
]
"""With worlds of a replica, turns, and the largest RMS error of the mean of 8 replicas."""
LIMIT = 5


def rms(learner: Prediction, mdp: TabularMDP, gamma: float, worlds: int, steps: int, limit: int | None) -> float:
    """Root mean square error over the states, of the mean of all replicas, after learning in a world."""
    table = Simulator(
        mdp, world_keys(5, learner.replicas, worlds), observation=torch.arange(mdp.states), time_limit=limit
    )
    list(Trainer(learner, table, TrainConfig(steps=steps, worlds=worlds, report_every=steps)).run())
    truth = dense_value(mdp, learner.target_policy.numpy(), gamma)
    return float(np.sqrt(np.square(learner.v.value.mean(0).numpy() - truth).mean()))


def cut_as_ended(mdp: TabularMDP, policy: np.ndarray) -> np.ndarray:
    """What TD(0) comes to when it takes the limit for an end: of all visits of a state some are the last."""
    P, r = dense(mdp, policy)
    visits = [mdp.start.numpy()]
    for _ in range(LIMIT - 1):
        visits.append(visits[-1] @ P)
    goes_on = 1 - visits[-1] / np.sum(visits, 0)
    return np.linalg.solve(np.eye(len(r)) - GAMMA * goes_on[:, None] * P, r)


@pytest.mark.parametrize(("kind", "extra", "worlds", "turns", "margin"), LEARNERS)
def test_it_converges_to_v_pi_also_under_a_time_limit(
    kind: type[Prediction], extra: dict[str, Any], worlds: int, turns: int, margin: float
) -> None:
    """A random policy in a random world that pays 1 more a step; 8 replicas; a limit of 5 steps cuts most episodes.

    Step sizes 1 / n^0.6. With 50 worlds a state is corrected in every turn by the mean of about ten returns, each of
    deviation 2 or so (all that is to come, some 6, is lost in one step of twenty). What is common to all states fades
    by 0.15 of a step: 2 / sqrt(10) sqrt(400^-0.6 / 0.3) = 0.19, of 8 replicas 0.07, and twice
    that the margin. With 2 worlds, one episode after another, 2 sqrt(120^-0.6 / 0.3) / sqrt(8) = 0.31.
    Forgetting the discount, or taking a limit for an end, is off by more than 1.
    """
    world = random_mdp(7, states=5, actions=2, outcomes=3, ending=0.15)
    mdp = replace(world, reward=world.reward + 1, start=uniform(1, 5)[0])
    policy = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(2), 5))
    truth = dense_value(mdp, policy.numpy(), GAMMA)
    for wrong in (dense_value(mdp, policy.numpy(), 1.0), cut_as_ended(mdp, policy.numpy())):
        assert np.sqrt(np.square(wrong - truth).mean()) > 1
    learner = agent(kind, list(range(8)), policy=policy, alpha=1.0, omega=0.6, initial=6.0, **extra)
    assert isinstance(learner, Predictor)
    found = rms(learner, mdp, GAMMA, worlds, worlds * turns, limit=LIMIT)
    assert found < margin


def test_it_nears_the_values_of_the_19_state_walk() -> None:
    """-0.9 ... 0.9, undiscounted; judged as `qx train` judges it: minus the RMS error, 0 at best."""
    world = load("random-walk-19")
    assert isinstance(world, World)
    learner = agent(TDLambda, list(range(8)), policy=uniform(21), gamma=1.0, alpha=1.0, omega=0.6, initial=0.0, lam=0.8)
    worlds = world.simulate(world_keys(0, 8, 40))
    list(Trainer(learner, worlds, TrainConfig(steps=32_000, worlds=40, report_every=32_000)).run())
    result = evaluate(learner, world, gamma=1.0, observation="index", seed=0, episodes=0)
    exact = dp.evaluate_exactly(world.mdp, learner.target_policy, 1.0)[world.mdp.lived()]
    np.testing.assert_allclose(exact, np.arange(-9, 10) / 10, atol=1e-12)
    assert result.returns.min() > -0.1
    assert result.optimal_return == 0


@pytest.mark.parametrize("name", ["td0", "mc-prediction"])
def test_where_states_look_alike_only_the_state_is_taken(name: str) -> None:
    """In a T-maze an index is no state, so a policy of states cannot be followed by it."""
    recipe, maze = AGENTS[name], load("t-maze")
    assert isinstance(maze, World)
    with pytest.raises(AgentError, match="in t-maze some look alike: take observation state"):
        recipe.build(recipe.config(), maze, 1, 0)
    learner = recipe.build(recipe.config(observation="state"), maze, 1, 0)
    learner.v.value[:] = dp.evaluate_exactly(maze.mdp, learner.target_policy, maze.discount)
    result = evaluate(learner, maze, gamma=maze.discount, observation="state", seed=0, episodes=0)
    assert result.returns.tolist() == pytest.approx([0], abs=1e-9)
