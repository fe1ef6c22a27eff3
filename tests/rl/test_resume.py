"""Every agent there is, stopped amid episodes and put together again from its saved tree, ends bit for bit the same."""

from typing import Any

import pytest
import torch

from envs.catalog import load
from lab import tree
from rl import agents
from rl.train import TrainConfig, Trainer

WORLD = "FrozenLake-v1"
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "dqn": ("CartPole-v1",),
    "tile-sarsa-lambda": ("MountainCar-v0",),
    "true-online-sarsa-lambda": ("MountainCar-v0",),
    "drqn": ("CartPole-v1", "t-maze"),
    "pqn": ("CartPole-v1",),
    "reinforce": ("CartPole-v1",),
    "reinforce-baseline": ("CartPole-v1",),
    "a2c": ("CartPole-v1",),
    "ppo": ("CartPole-v1",),
}
"""Worlds besides the lake on which an agent is tried too."""
DEEP: dict[str, Any] = {"hidden": (8,), "learning_starts": 40, "capacity": 90, "target_every": 5, "batch_size": 8}
SMALL: dict[str, dict[str, Any]] = {
    "n-step-sarsa": {"exploration_steps": 300, "n": 3},
    "n-step-expected-sarsa": {"exploration_steps": 300, "n": 3},
    "tree-backup": {"exploration_steps": 300, "n": 3},
    "n-step-td": {"n": 3},
    "tile-sarsa-lambda": {"tiles": 3, "tilings": 4, "exploration_steps": 300},
    "true-online-sarsa-lambda": {"tiles": 3, "tilings": 4, "exploration_steps": 300},
    "fourier-sarsa-lambda": {"order": 2, "exploration_steps": 300},
    "q-learning": {"exploration_steps": 300},
    "sarsa": {"exploration_steps": 300},
    "expected-sarsa": {"exploration_steps": 300},
    "double-q-learning": {"exploration_steps": 300},
    "sarsa-lambda": {"exploration_steps": 300},
    "watkins-q-lambda": {"exploration_steps": 300},
    "dyna-q": {"exploration_steps": 300, "planning": 3},
    "dyna-q-plus": {"exploration_steps": 300, "planning": 3},
    **dict.fromkeys(["dqn", "double-dqn", "dueling-dqn", "n-step-dqn", "noisy-dqn"], DEEP),
    "prioritised-dqn": {**DEEP, "importance_steps": 300},
    "c51": {**DEEP, "atoms": 11},
    "qr-dqn": {**DEEP, "quantiles": 5},
    "rainbow": {**DEEP, "atoms": 11, "importance_steps": 300},
    "drqn": {
        **{"width": 8, "learning_starts": 40, "capacity": 90, "target_every": 2, "batch_size": 4},
        **{"burn_in": 2, "length": 8, "stride": 4, "train_every": 16, "gradient_steps": 1},
    },
    "pqn": {"hidden": (8,), "rollout": 7, "epochs": 2, "minibatches": 3},
    "reinforce": {"horizon": 20},
    "reinforce-baseline": {"hidden": (8,), "horizon": 20},
    "a2c": {"hidden": (8,), "rollout": 4},
    "ppo": {"hidden": (8,), "rollout": 7, "epochs": 2, "minibatches": 2},
}
"""What makes an agent small, and busy with all that it does within 300 steps."""


def same(a: Any, b: Any) -> bool:
    """Equal trees, bit for bit (nan equals nan)."""
    tensors, skeleton = tree.split(a)
    others, other = tree.split(b)
    return skeleton == other and all(
        one.dtype == others[name].dtype and torch.equal(one.nan_to_num(7.5), others[name].nan_to_num(7.5))
        for name, one in tensors.items()
    )


CASES = [(name, world) for name in agents.AGENTS for world in (WORLD, *ELSEWHERE.get(name, ()))]


@pytest.mark.parametrize(("name", "world"), CASES)
def test_a_run_killed_amid_episodes_resumes_bit_for_bit(name: str, world: str) -> None:
    """Stopped at step 150 of 300: two replicas in three worlds each."""
    config = agents.AGENTS[name].config(**SMALL.get(name, {}))

    def trainer() -> Trainer:
        length = TrainConfig(steps=300, worlds=3, report_every=30)
        return agents.trainer(name, load(world), config, length, replicas=2, seed=1)

    whole, first = trainer(), trainer()
    reports = dict(whole.run())
    assert list(dict(first.run(until=150))) == [30, 60, 90, 120, 150]
    saved = tree.join(*tree.split(first.state_dict()))
    assert (saved["running"][1] > 0).any()  # episodes are under way
    resumed = trainer()
    list(resumed.run(until=60))  # a past of its own, to be overwritten
    resumed.load_state_dict(saved)
    for step, metrics in resumed.run():
        assert same(metrics, reports[step])
    assert resumed.step == 300
    assert same(resumed.state_dict(), whole.state_dict())
    assert not same(resumed.agent.state_dict(), first.agent.state_dict())
