"""Errors against hand-worked arrays; Q-learning against a loop over numbers, and against q*."""

import numpy as np
import pytest
import torch

from envs.catalog import load
from envs.simulator import Simulator
from envs.world import World
from lab import streams
from rl import dp, td
from rl.evaluate import evaluate
from rl.tabular.q_learning import QLearning
from rl.train import TrainConfig, Trainer, world_keys
from rl.types import Transition
from tests.oracles.dp import random_mdp

# Four steps: an ordinary one, one that ended the world, one cut by the time limit, one with a tie.
Q_TM1 = torch.tensor([[1.0, 2.0], [0.5, 0.0], [3.0, -1.0], [0.0, 0.0]])
A_TM1 = torch.tensor([1, 0, 1, 0])
R_T = torch.tensor([1.0, -1.0, 0.5, 2.0])
Q_T = torch.tensor([[4.0, 2.0], [10.0, 10.0], [1.0, 6.0], [-1.0, -1.0]])
SELECTOR = torch.tensor([[0.0, 1.0], [1.0, 0.0], [9.0, 8.0], [0.0, 0.0]])
TERMINATED = torch.tensor([False, True, False, False])
DISCOUNT_T = 0.9 * (~TERMINATED).float()


def test_q_learning_errors_worked_by_hand() -> None:
    """1 + .9 4 - 2;  -1 + 0 - .5;  .5 + .9 6 + 1 (the limit still bootstraps);  2 - .9 - 0."""
    error = td.q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T)
    torch.testing.assert_close(error, torch.tensor([2.6, -1.5, 6.9, 1.1]))


def test_double_q_learning_errors_worked_by_hand() -> None:
    """1 + .9 2 - 2;  -1.5;  .5 + .9 1 + 1;  1.1: the selector chooses 1, 0, 0, 0."""
    error = td.double_q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, SELECTOR)
    torch.testing.assert_close(error, torch.tensor([0.8, -1.5, 2.4, 1.1]))


def test_no_gradient_flows_into_a_target() -> None:
    q_tm1, q_t, selector = (q.clone().requires_grad_() for q in (Q_TM1, Q_T, SELECTOR))
    td.q_learning(q_tm1, A_TM1, R_T, DISCOUNT_T, q_t).sum().backward()
    td.double_q_learning(q_tm1, A_TM1, R_T, DISCOUNT_T, q_t, selector).sum().backward()
    assert q_t.grad is None
    assert selector.grad is None
    torch.testing.assert_close(q_tm1.grad, -2 * torch.nn.functional.one_hot(A_TM1, 2).float())


def agent(seeds: list[int], states: int, actions: int, **changes: object) -> QLearning:
    arguments = {"gamma": 0.9, "alpha": 1.0, "omega": 0.6, "epsilon": (1.0, 0.2), "epsilon_steps": 100} | changes
    return QLearning(states, actions, seeds, **arguments)


def test_updates_equal_a_plain_loop_over_numbers() -> None:
    """Random steps of 2 replicas x 6 worlds on 3 states x 2 actions, where pairs often meet in one call."""
    R, W, S, A = 2, 6, 3, 2
    learner = agent([1, 2], S, A)
    q, n = np.zeros((R, S, A)), np.zeros((R, S, A))
    rng = np.random.default_rng(0)
    for _ in range(50):
        s, a, r = rng.integers(0, S, (R, W)), rng.integers(0, A, (R, W)), rng.normal(size=(R, W)).astype(np.float32)
        after, ended = rng.integers(0, S, (R, W)), rng.random((R, W)) < 0.3
        learner.update(
            Transition(
                obs=torch.from_numpy(s),
                memory=torch.zeros(R, W, 0),
                action=torch.from_numpy(a),
                reward=torch.from_numpy(r),
                next_obs=torch.from_numpy(after),
                discount=torch.from_numpy(1 - ended.astype(np.float32)),
                last=torch.from_numpy(ended | (rng.random((R, W)) < 0.2)),  # a time limit: must change nothing
            )
        )
        old = q.copy()
        for i in range(R):
            for pair in {(int(x), int(y)) for x, y in zip(s[i], a[i], strict=True)}:
                errors = [
                    r[i, w] + (0 if ended[i, w] else 0.9 * max(old[i, after[i, w]])) - old[(i, *pair)]
                    for w in range(W)
                    if (s[i, w], a[i, w]) == pair
                ]
                n[(i, *pair)] += 1
                q[(i, *pair)] += np.mean(errors) / n[(i, *pair)] ** 0.6
    np.testing.assert_allclose(learner.q.value.numpy(), q, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(learner.q.n.numpy(), n)


def train(learner: QLearning, world: World, seed: int, worlds: int, steps: int) -> None:
    keys = world_keys(seed, learner.replicas, worlds)
    trainer = Trainer(learner, world.simulate(keys), TrainConfig(steps=steps, worlds=worlds, report_every=steps))
    for _ in trainer.run():
        pass


def world(name: str) -> World:
    found = load(name)
    assert isinstance(found, World)
    return found


def test_q_learning_reaches_q_star_on_zhao_5x5() -> None:
    """20 replicas, 15,000 steps each in 50 worlds: every entry of every table within 0.01 of q* (values reach 10)."""
    zhao = world("zhao-5x5")
    learner = agent(list(range(20)), 25, 5, omega=0.0, epsilon=(1.0, 1.0))
    train(learner, zhao, seed=0, worlds=50, steps=15_000)
    truth = dp.value_iteration(zhao.mdp, 0.9).q
    assert (learner.q.value - truth).abs().amax() < 0.01
    result = evaluate(learner, zhao, gamma=0.9, observation="index", seed=0, episodes=0)
    assert result.gap == pytest.approx(0, abs=1e-9)


def test_decaying_steps_reach_q_star_under_chance_and_constant_ones_do_not() -> None:
    """5 states, 3 actions, 3 outcomes at random; discount 0.5; 8 replicas, 40,000 steps each in 20 worlds.

    The largest error over all replicas and pairs (of values up to 2.8): below 0.3 with the law 1 / n^0.9, where the
    sampling noise of a pair's 660 updates or more lets expect about 0.15; above 1 with a constant step size of 1.
    """
    mdp = random_mdp(11, states=5, actions=3, outcomes=3, ending=0.1)
    truth = dp.value_iteration(mdp, 0.5).q
    errors = {}
    for omega in (0.9, 0.0):
        learner = agent(list(range(8)), 5, 3, gamma=0.5, omega=omega, epsilon=(1.0, 1.0))
        worlds = Simulator(mdp, world_keys(1, 8, 20), observation=torch.arange(5))
        list(Trainer(learner, worlds, TrainConfig(steps=40_000, worlds=20, report_every=40_000)).run())
        errors[omega] = (learner.q.value - truth).abs().amax().item()
    assert errors[0.9] < 0.3
    assert errors[0.0] > 1


def test_the_worlds_of_a_replica_are_the_same_whoever_rides_along() -> None:
    assert streams.keys(3, "world", 5, 4)[:3].flatten().equal(world_keys(3, 3, 4))
