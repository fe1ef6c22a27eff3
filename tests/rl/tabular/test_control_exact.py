"""Each learner against exact action values: q*, or those of the best epsilon-greedy policy, by dynamic programming."""

from __future__ import annotations

import pytest
import torch

from envs.catalog import load
from envs.mdp import TabularMDP
from envs.simulator import Simulator
from envs.world import World
from rl import dp
from rl.tabular.control import Control
from rl.tabular.double_q import DoubleQLearning
from rl.tabular.dyna import DynaQ, DynaQPlus
from rl.tabular.expected_sarsa import ExpectedSarsa
from rl.tabular.sarsa import Sarsa
from rl.tabular.sarsa_lambda import SarsaLambda
from rl.tabular.watkins import WatkinsQLambda
from rl.train import TrainConfig, Trainer, world_keys
from tests.oracles.dp import random_mdp

REPLICAS = 8
CHANCE = random_mdp(11, states=5, actions=3, outcomes=3, ending=0.1)  # |q*| up to 2.8 at discount 0.5
ZHAO = load("zhao-2x2")  # no chance, values up to 10 at discount 0.9
assert isinstance(ZHAO, World)


def learnt(
    kind: type[Control],
    mdp: TabularMDP,
    gamma: float,
    epsilon: tuple[float, float],
    *,
    omega: float,
    alpha: float = 1.0,
    steps: int = 20_000,
    worlds: int = 50,
    limit: int | None = None,
    seeds: range = range(REPLICAS),
    **own: object,
) -> torch.Tensor:
    """Action values [R, S, A] after `steps` steps of each replica; epsilon goes its way over all of them."""
    arguments = {"gamma": gamma, "alpha": alpha, "omega": omega, "epsilon": epsilon, "epsilon_steps": steps}
    learner = kind(mdp.states, mdp.actions, list(seeds), **arguments, **own)
    keys = world_keys(1, REPLICAS, worlds).view(REPLICAS, worlds)[seeds.start : seeds.stop].flatten()
    acting = Simulator(mdp, keys, observation=torch.arange(mdp.states), time_limit=limit)
    list(Trainer(learner, acting, TrainConfig(steps=steps, worlds=worlds, report_every=steps)).run())
    return learner.q_values(torch.arange(mdp.states))


def off(q: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest error over all replicas and pairs."""
    return float((q - truth).abs().amax())


def rms(q: torch.Tensor, truth: torch.Tensor) -> float:
    """The root mean square error over pairs, of the worst replica."""
    return float((q - truth).square().mean((-1, -2)).sqrt().amax())


@pytest.mark.parametrize(
    ("kind", "own"), [(DoubleQLearning, {}), (WatkinsQLambda, {"lam": 0.8})], ids=["double-q", "watkins"]
)
def test_off_policy_learners_reach_q_star_under_chance(kind: type[Control], own: dict[str, float]) -> None:
    """8 replicas, 400 turns of 50 worlds, uniform behaviour, step sizes 1 / n^0.9.

    A pair is corrected 350 times (in each of two tables half as often) by means of 3 samples whose deviation is about
    1.2, which leaves 0.05; the start is forgotten as n^(-(1 - gamma)), to 0.06 of 1: together < 0.2. The best policy of
    epsilon 0.3 is 0.23 away.
    """
    star = dp.value_iteration(CHANCE, 0.5).q
    assert rms(dp.policy_iteration(CHANCE, 0.5, epsilon=0.3).q, star) > 0.23
    assert rms(learnt(kind, CHANCE, 0.5, (1.0, 1.0), omega=0.9, **own), star) < 0.2


@pytest.mark.parametrize(
    ("kind", "own"),
    [(Sarsa, {}), (ExpectedSarsa, {}), (SarsaLambda, {"lam": 0.8})],
    ids=["sarsa", "expected-sarsa", "sarsa-lambda"],
)
def test_on_policy_learners_reach_the_best_epsilon_greedy_policy_under_chance(
    kind: type[Control], own: dict[str, float]
) -> None:
    """8 replicas as above at epsilon 0.5, the same bound of 0.2; q* is 0.38 away."""
    truth, star = dp.policy_iteration(CHANCE, 0.5, epsilon=0.5).q, dp.value_iteration(CHANCE, 0.5).q
    assert rms(truth, star) > 0.37
    q = learnt(kind, CHANCE, 0.5, (0.5, 0.5), omega=0.9, **own)
    assert rms(q, truth) < 0.2
    assert rms(q, star) > 0.3


@pytest.mark.parametrize(
    ("kind", "alpha", "steps", "own"),
    [
        (DoubleQLearning, 1.0, 8000, {}),
        (WatkinsQLambda, 0.5, 8000, {"lam": 0.5}),
        (DynaQ, 1.0, 3000, {"planning": 3}),
        (DynaQPlus, 1.0, 3000, {"planning": 3, "kappa": 0.0}),
    ],
    ids=["double-q", "watkins", "dyna-q", "dyna-q-plus"],
)
def test_without_chance_constant_steps_reach_q_star_exactly(
    kind: type[Control], alpha: float, steps: int, own: dict
) -> None:
    """8 replicas, 20 worlds of each, episodes of 5 steps from anywhere: a limit that did not bootstrap would show.

    Nothing but a contraction is at work, gamma^k after every pair was corrected k times: 1e-3 of 10 is k = 90.
    """
    star = dp.value_iteration(ZHAO.mdp, 0.9, tolerance=1e-12).q
    q = learnt(kind, ZHAO.mdp, 0.9, (1.0, 1.0), omega=0.0, alpha=alpha, steps=steps, worlds=20, limit=5, **own)
    assert off(q, star) < 1e-3


def test_without_chance_expected_sarsa_reaches_the_best_epsilon_greedy_policy_exactly() -> None:
    """As above, at epsilon 0.5, where greedy values are 3 away."""
    truth = dp.policy_iteration(ZHAO.mdp, 0.9, epsilon=0.5).q
    assert off(truth, dp.value_iteration(ZHAO.mdp, 0.9).q) > 3
    q = learnt(ExpectedSarsa, ZHAO.mdp, 0.9, (0.5, 0.5), omega=0.0, steps=8000, worlds=20, limit=5)
    assert off(q, truth) < 1e-3


@pytest.mark.parametrize(("kind", "own"), [(Sarsa, {}), (SarsaLambda, {"lam": 0.5})], ids=["sarsa", "sarsa-lambda"])
def test_sarsa_becomes_optimal_as_epsilon_vanishes(kind: type[Control], own: dict[str, float]) -> None:
    """8 replicas, 20,000 steps, epsilon from 1 to 0 in a line (greedy in the limit), step size 0.5 without chance.

    What a policy is worth is 12.6 epsilon from v*. In the last 80 turns epsilon is below 0.08, and a state is left and
    learnt from some 400 times: below 1. All greedy policies are optimal exactly.
    """
    best = dp.value_iteration(ZHAO.mdp, 0.9, tolerance=1e-12)
    assert off(dp.policy_iteration(ZHAO.mdp, 0.9, epsilon=0.08).q.amax(-1), best.values) == pytest.approx(1, abs=0.05)
    q = learnt(kind, ZHAO.mdp, 0.9, (1.0, 0.0), omega=0.0, alpha=0.5, steps=20_000, worlds=20, limit=5, **own)
    assert off(q.amax(-1), best.values) < 1
    assert off(dp.evaluate_exactly(ZHAO.mdp, q.argmax(-1), 0.9), best.values) < 1e-9
