"""Every agent there is, stopped amid episodes and put together again from its saved tree, ends bit for bit the same."""

from typing import Any

import pytest
import torch

from envs.catalog import load
from lab import tree
from rl import agents
from rl.train import TrainConfig, Trainer

WORLD = "FrozenLake-v1"
ELSEWHERE: dict[str, tuple[str, ...]] = {"dqn": ("CartPole-v1",)}
"""Worlds besides the lake on which an agent is tried too."""
SMALL: dict[str, dict[str, Any]] = {
    "q-learning": {"exploration_steps": 300},
    "dqn": {"hidden": (8,), "learning_starts": 40, "capacity": 90, "target_every": 5, "batch_size": 8},
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
