"""Monte Carlo learners against exact values, against Sutton & Barto's pseudocode written out, and by themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from envs.catalog import load
from envs.mdp import TabularMDP
from envs.simulator import Simulator
from rl import agents, dp
from rl.agents import AgentError
from rl.backup import Backup
from rl.explore import greedy_odds
from rl.monte_carlo.basic import mc_basic
from rl.monte_carlo.control import ExploringStarts, MonteCarlo
from rl.monte_carlo.episodes import every_visit, first_visits
from rl.monte_carlo.importance import ordinary, per_decision, weighted
from rl.monte_carlo.off_policy import OffPolicy
from rl.monte_carlo.prediction import Prediction
from rl.recipes.monte_carlo import AGENTS, ExploringStartsConfig, begun_anywhere
from rl.train import TrainConfig, Trainer, world_keys
from rl.types import Agent, Transition
from tests.oracles.dp import random_mdp

SMALL = random_mdp(11, states=4, actions=2, outcomes=2, ending=0.3)
ANYWHERE = replace(SMALL, start=torch.full((4,), 0.25, dtype=torch.float64))
GAMMA = 0.9
TARGET = torch.tensor([[0.8, 0.2], [0.3, 0.7], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
EVEN = torch.full((4, 2), 0.5, dtype=torch.float64)


def trained(agent: Agent, mdp: TabularMDP, limit: int, steps: int, worlds: int) -> None:
    simulator = Simulator(mdp, world_keys(3, agent.replicas, worlds), observation=torch.arange(4), time_limit=limit)
    list(Trainer(agent, simulator, TrainConfig(steps=steps, worlds=worlds, report_every=steps)).run())


def near(found: Tensor, truth: Tensor, most: float) -> None:
    """The mean of R independent estimates is within four standard errors of the truth, and those are small."""
    error = found.std(0) / len(found) ** 0.5
    assert (error < most).all(), error
    assert ((found.mean(0) - truth).abs() < 4 * error + 1e-3).all(), (found.mean(0) - truth) / error


@pytest.mark.parametrize("visits", [first_visits, every_visit])
@pytest.mark.parametrize("estimate", [None, weighted, ordinary, per_decision])
def test_predictors_reach_the_policys_values(estimate: object, visits: object) -> None:
    """40 replicas of 8,000 steps; without an estimator from the policy's own episodes, else from random actions."""
    how = {} if estimate is None else {"estimate": estimate}
    agent = Prediction(
        TARGET, TARGET if estimate is None else EVEN, range(40), gamma=GAMMA, limit=60, tail=0, visits=visits, **how
    )
    trained(agent, SMALL, 60, 8_000, 100)
    near(agent.v.value, dp.evaluate_exactly(SMALL, TARGET, GAMMA), 0.03)


def test_a_cut_episode_is_worth_what_was_seen_of_it() -> None:
    """An endless world cut after 6 steps, of which the first teaches: the value within 6 steps, not the endless one."""
    endless = random_mdp(4, states=4, actions=2, outcomes=2, ending=0.0)
    endless = replace(endless, reward=endless.reward + 1, start=ANYWHERE.start)
    within, forever = dp.policy_evaluation(endless, TARGET, GAMMA, 6), dp.evaluate_exactly(endless, TARGET, GAMMA)
    agent = Prediction(TARGET, TARGET, range(40), gamma=GAMMA, limit=6, tail=5)
    trained(agent, endless, 6, 6_000, 100)
    near(agent.v.value, within, 0.05)
    bound = GAMMA**6 * float(endless.reward.abs().max()) / (1 - GAMMA)
    assert ((forever - within).abs() <= bound).all()
    assert ((forever - agent.v.value.mean(0)).abs() > 2).all()


def test_epsilon_greedy_control_reaches_the_best_soft_policy() -> None:
    """40 replicas at a constant epsilon of 0.4: q is that of the best epsilon-greedy policy, not q*."""
    for visits in (first_visits, every_visit):
        agent = MonteCarlo(
            4, 2, range(40), gamma=GAMMA, limit=60, tail=0, visits=visits, epsilon=(0.4, 0.4), epsilon_steps=1
        )
        trained(agent, SMALL, 60, 20_000, 100)
        best = dp.policy_iteration(SMALL, GAMMA, 0.4)
        assert (agent.q.value.mean(0) - best.q).abs().max() < 0.06
        assert (agent.q.value.argmax(-1) == best.policy).double().mean() > 0.9
        assert (dp.policy_iteration(SMALL, GAMMA).q - best.q).abs().max() > 0.2


def test_exploring_starts_and_off_policy_control_reach_q_star() -> None:
    """40 replicas; off-policy the median one, for a few hold heavy returns of a former policy for long."""
    best = dp.policy_iteration(SMALL, GAMMA)
    starts = ExploringStarts(4, 2, range(40), gamma=GAMMA, limit=60, tail=0)
    trained(starts, ANYWHERE, 60, 20_000, 100)
    off = OffPolicy(4, 2, range(40), gamma=GAMMA, limit=60, tail=0, epsilon=(0.6, 0.6), epsilon_steps=1)
    trained(off, ANYWHERE, 60, 20_000, 100)
    for agent in (starts, off):
        assert (agent.q.value.median(0).values - best.q).abs().max() < 0.06
        assert (agent.q.value.argmax(-1) == best.policy).double().mean() > 0.9


def test_exploring_starts_begin_with_any_action_and_go_on_greedily() -> None:
    agent = ExploringStarts(4, 2, [5], gamma=GAMMA, limit=9, tail=0)
    agent.q.value[0, :, 1] = 1.0
    obs, memory = torch.zeros(1, 400).long(), agent.memory(400)
    first = agent.act(obs, memory)[0]
    assert 150 < int(first.sum()) < 250
    last = torch.arange(400)[None] < 200
    step = Transition(obs, memory, first, torch.zeros(1, 400), obs, torch.ones(1, 400), last)
    agent.update(step)
    agent.q.value[0, :, 1] = 1.0
    second = agent.act(obs, memory)[0]
    assert 60 < int(second[last].sum()) < 140
    assert (second[~last] == 1).all()
    anywhere = begun_anywhere(ExploringStartsConfig(), load("FrozenLake-v1"))
    assert anywhere.mdp.start[anywhere.mdp.start > 0].tolist() == pytest.approx([1 / 11] * 11)


def test_off_policy_control_is_the_books_pseudocode() -> None:
    """One world; episodes of random steps with the behaviour's odds of the moment (Sutton & Barto, p. 111)."""
    S, A, limit = 3, 2, 7
    agent = OffPolicy(S, A, [1], gamma=0.8, limit=limit, tail=2, epsilon=(0.5, 0.5), epsilon_steps=1)
    q, c, rng, taught = np.zeros((S, A)), np.zeros((S, A)), np.random.default_rng(0), 0
    for _ in range(60):
        length = int(rng.integers(1, limit + 1))
        odds = greedy_odds(torch.from_numpy(q), 0.5).numpy()
        episode = [(int(rng.integers(S)), int(rng.integers(A)), float(rng.integers(-3, 4))) for _ in range(length)]
        for t, (s, a, r) in enumerate(episode):
            one = torch.tensor([[s]])
            last = torch.tensor([[t == length - 1]])
            agent.update(
                Transition(
                    one, torch.zeros(1, 1, 0), torch.tensor([[a]]), torch.tensor([[r]]), one, (~last).float(), last
                )
            )
        G, W = 0.0, 1.0
        for t in reversed(range(length)):
            s, a, r = episode[t]
            G = 0.8 * G + r
            if t < limit - 2:
                c[s, a] += W
                q[s, a] += W / c[s, a] * (G - q[s, a])
                taught += 1
            if a != q[s].argmax():
                break
            W /= odds[s, a]
        np.testing.assert_allclose(agent.q.value[0].numpy(), q, rtol=1e-12, atol=1e-12)
    assert taught == int(agent.q.n.sum()) > 60


def test_mc_basic_is_policy_iteration_within_the_length() -> None:
    """q of the first iteration by sweeps: r + gamma P v within L - 1 steps; in the end the best policy."""
    policy, L = torch.tensor([[0, 1, 0, 1], [1, 1, 0, 0]]), 5
    runs = mc_basic(SMALL, GAMMA, policy, [1, 2], length=L, episodes=4000)
    q, better = next(runs)
    for r in range(2):
        ahead = dp.policy_evaluation(SMALL, policy[r], GAMMA, L - 1)
        torch.testing.assert_close(q[r], Backup(SMALL, GAMMA)(ahead), rtol=0, atol=0.12)
        assert torch.equal(better[r], q[r].argmax(-1))
    best = dp.policy_iteration(SMALL, GAMMA).policy
    again = mc_basic(SMALL, GAMMA, policy, [1, 2], length=25, episodes=1000)
    for _ in range(4):
        _, better = next(again)
    assert (better == best).all()
    with pytest.raises(ValueError, match="1 episodes of 0 steps"):
        next(mc_basic(SMALL, GAMMA, policy, [1, 2], length=0))


@pytest.mark.parametrize("name", AGENTS)
def test_a_replica_learns_the_same_whoever_rides_along(name: str) -> None:
    cards, length = load("blackjack"), TrainConfig(steps=400, worlds=4, report_every=400)
    tables = []
    for replicas in (1, 3):
        trainer = agents.trainer(name, cards, None, length, replicas=replicas, seed=2)
        list(trainer.run())
        held = trainer.agent
        tables.append((held.v if isinstance(held, Prediction) else held.q).value)
    assert torch.equal(tables[0][0], tables[1][0])
    assert tables[1].abs().sum() > 0


def test_what_is_refused() -> None:
    zhao = load("zhao-5x5")
    for config, message in (
        (ExploringStartsConfig(limit=0), "limit is 0, expected an episode of 1 step or more"),
        (ExploringStartsConfig(limit=5, tail=5), "tail is 5 in episodes of 5 steps, expected 0 to 4"),
    ):
        with pytest.raises(AgentError, match=message):
            AGENTS["mc-exploring-starts"].build(config, zhao, 1, 0)
    with pytest.raises(
        ValueError, match=r"the policy takes action 1 in state 0 with 0\.2, expected behaviour that may"
    ):
        Prediction(TARGET, torch.tensor([[1.0, 0.0]]).double().expand(4, 2), [0], gamma=0.9, limit=5, tail=0)
