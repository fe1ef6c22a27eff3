"""Every composition learns a small world to its exact optimum and values."""

import dataclasses
from typing import Any

import pytest

from envs.catalog import load
from envs.world import World
from rl import agents, dp
from rl.deep.dqn import DQN
from rl.evaluate import evaluate
from rl.recipes.deep import PARTS
from rl.train import TrainConfig

GAMMA = 0.5
SETTINGS: dict[str, Any] = {
    "gamma": GAMMA,
    "n": 1,
    "hidden": (32, 32),
    "batch_size": 32,
    "capacity": 1_800,
    "learning_starts": 200,
    "train_every": 12,
    "gradient_steps": 3,
    "target_every": 10,
    "epsilon": 1.0,
    "final_epsilon": 0.5,
    "exploration_steps": 600,
    "learning_rate": 3e-3,
    "final_learning_rate": 3e-4,
    "learning_rate_steps": 1_800,
}
OWN: dict[str, dict[str, Any]] = {
    # On-policy in the end: nothing corrects n steps.
    "n-step-dqn": {"n": 3, "final_epsilon": 0.0, "capacity": 600, "gradient_steps": 4},
    "noisy-dqn": {"gradient_steps": 4},
    "qr-dqn": {"quantiles": 8},
}
WORLDS = {"noisy-dqn": 8, "n-step-dqn": 8}  # which learn less from each update, so that they make more
WITHIN = {"noisy-dqn": 0.1, "n-step-dqn": 0.15}  # noise that is left; older actions at random


def trained(name: str, world: World, steps: int = 1_800, replicas: int = 2, **changes: Any) -> DQN:
    config = dataclasses.replace(PARTS[name][0](), **(SETTINGS | OWN.get(name, {}) | changes))
    length = TrainConfig(steps=steps, worlds=WORLDS.get(name, 24), report_every=steps)
    trainer = agents.trainer(name, world, config, length, replicas=replicas, seed=0)
    list(trainer.run())
    assert isinstance(trainer.agent, DQN)
    return trainer.agent


def zhao() -> World:
    world = load("zhao-2x2")
    assert isinstance(world, World)
    return world


@pytest.mark.parametrize("name", PARTS)
def test_every_composition_is_optimal_and_knows_what_it_is_worth(name: str) -> None:
    """Two replicas, 1,800 steps: every greedy policy optimal, max q within 0.05 of v* (1 to 2), or as `WITHIN` says."""
    world = zhao()
    agent = trained(name, world)
    found = evaluate(agent, world, gamma=GAMMA, observation="one-hot", seed=0, episodes=0)
    assert (found.optimal_return - found.returns).abs().max() < 1e-9
    exact = dp.value_iteration(world.mdp, GAMMA).values
    assert (agent.values(world.observe("one-hot")) - exact).abs().max() < WITHIN.get(name, 0.05)
