"""Linear Sarsas against the exact values of the best epsilon-greedy policy, where their features can hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from backbones.features import Fourier
from envs.simulator import Simulator
from rl import dp
from rl.linear.features import Active, Dense, OfStates, Scaled, one_hot
from rl.linear.sarsa import LinearSarsaLambda, TrueOnlineSarsaLambda, accumulating, replacing
from rl.train import TrainConfig, Trainer, world_keys
from tests.oracles.dp import random_mdp

S, A, EPSILON = 4, 3, 0.5
WORLD = replace(random_mdp(11, states=S, actions=A, outcomes=3, ending=0.3), start=torch.full((S,), 1 / S).double())


def waves() -> OfStates:
    """Four states on a line, and the four waves up to order 3: any value of each can be had."""
    dense = Dense(Scaled(torch.zeros(1), torch.ones(1)), Fourier(1, 3))
    assert not isinstance(dense.rates, float)
    seen = dense(torch.linspace(0, 1, S).unsqueeze(-1))
    assert torch.linalg.matrix_rank(seen.strength) == S
    return OfStates(Active(*seen), dense.size, dense.rates)


@pytest.mark.parametrize(
    ("kind", "own", "features", "alpha"),
    [
        (LinearSarsaLambda, {"trace": replacing}, one_hot(S), (0.5, 0.01)),
        (LinearSarsaLambda, {"trace": accumulating}, one_hot(S), (0.5, 0.01)),
        (TrueOnlineSarsaLambda, {}, one_hot(S), (0.5, 0.01)),
        (LinearSarsaLambda, {"trace": accumulating}, waves(), (0.3, 0.02)),
    ],
    ids=["replacing", "accumulating", "true-online", "fourier"],
)
def test_it_reaches_the_best_epsilon_greedy_policy(kind: Any, own: dict[str, Any], features: Any, alpha: Any) -> None:
    """4 replicas of 40 worlds, 500 turns, a limit of 6 steps, discount 0.5, lambda 0.6, epsilon 0.5; q* is 0.2 away.

    A pair is corrected by the mean of some three samples of deviation 1.2, the step size 0.01 in the end: 0.05 is left,
    and of the mean of the replicas half as much. Worlds that end come a turn early: counted apart it is off by more.
    """
    truth, star = dp.policy_iteration(WORLD, 0.5, epsilon=EPSILON).q, dp.value_iteration(WORLD, 0.5).q
    assert (truth - star).abs().amax() > 0.2
    rest = {"alpha": alpha, "alpha_steps": 18_000, "epsilon": (EPSILON, EPSILON), "epsilon_steps": 1, **own}
    agent = kind(features, A, [0, 1, 2, 3], gamma=0.5, lam=0.6, **rest)
    worlds = Simulator(WORLD, world_keys(1, 4, 40), observation=torch.arange(S), time_limit=6)
    list(Trainer(agent, worlds, TrainConfig(steps=20_000, worlds=40, report_every=20_000)).run())
    q = agent.q_values(torch.arange(S).expand(4, S))
    assert (q.mean(0) - truth).abs().amax() < 0.1
