"""Every agent there is, stopped amid episodes and put together again from its saved tree, ends bit for bit the same."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.catalog import load
from lab import tree
from rl import agents
from rl.recipes import deep, gradient, memory, parallel
from rl.train import TrainConfig, Trainer

WORLD = "FrozenLake-v1"
ELSEWHERE: dict[str, tuple[str, ...]] = {
    "dqn": ("CartPole-v1",),
    "tile-sarsa-lambda": ("MountainCar-v0",),
    "true-online-sarsa-lambda": ("MountainCar-v0",),
    "n-step-dqn": ("CartPole-v1",),
    "rainbow": ("CartPole-v1",),
    "drqn": ("CartPole-v1", "t-maze"),
    "pqn": ("CartPole-v1",),
    "reinforce": ("CartPole-v1",),
    "reinforce-baseline": ("CartPole-v1",),
    "a2c": ("CartPole-v1",),
    "ppo": ("CartPole-v1",),
}
"""Worlds besides the lake on which an agent is tried too."""
PICTURES = ("n-step-dqn", "drqn", "pqn", "ppo")
"""Agents that are tried on planes too."""
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
    "c51": {**DEEP, "atoms": 11, "low": 0.0, "high": 10.0},
    "qr-dqn": {**DEEP, "quantiles": 5},
    "rainbow": {**DEEP, "atoms": 11, "low": 0.0, "high": 10.0, "importance_steps": 300},
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


CASES = [(name, world, "") for name in agents.AGENTS for world in (WORLD, *ELSEWHERE.get(name, ()))]
CASES += [(name, WORLD, "planes") for name in PICTURES]


@pytest.mark.parametrize(("name", "world", "observation"), CASES)
def test_a_run_killed_amid_episodes_resumes_bit_for_bit(name: str, world: str, observation: str) -> None:
    """Stopped at step 150 of 300: two replicas in three worlds each."""
    sees = {"observation": observation} if observation else {}
    config = agents.AGENTS[name].config(**SMALL.get(name, {}), **sees)

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


DEEP_AGENTS = [*deep.AGENTS, *memory.AGENTS, *parallel.AGENTS, *gradient.AGENTS]


def halfway(name: str, device: str = "cpu") -> Trainer:
    """Two small replicas in three worlds each, not begun."""
    config, length = agents.AGENTS[name].config(**SMALL[name]), TrainConfig(steps=300, worlds=3, report_every=30)
    return agents.trainer(name, load(WORLD), config, length, replicas=2, seed=1, device=device)


def tensors(held: Any, seen: set[int], path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors that an object of ours holds, at any depth, by where they are."""
    if id(held) in seen:
        return
    seen.add(id(held))
    if isinstance(held, Tensor):
        yield path, held
    elif isinstance(held, Mapping):
        for name, one in held.items():
            yield from tensors(one, seen, f"{path}/{name if isinstance(name, str) else 0}")
    elif isinstance(held, list | tuple):
        for i, one in enumerate(held):
            yield from tensors(one, seen, f"{path}/{i}")
    elif hasattr(held, "__dict__") and not isinstance(held, type) and not callable(getattr(held, "__code__", None)):
        yield from tensors(vars(held), seen, path)


@pytest.mark.parametrize("name", DEEP_AGENTS)
def test_a_state_is_put_where_the_agent_is(name: str) -> None:
    """Saved on the CPU, put into an agent on a device that holds no numbers: nothing with a shape stays behind."""
    first = halfway(name)
    list(first.run(until=150))
    config = agents.AGENTS[name].config(**SMALL[name])
    agent = agents.AGENTS[name].build(config, load(WORLD), 2, 1, "meta")
    agent.load_state_dict(first.agent.state_dict())
    found = dict(tensors(vars(agent), set()))
    assert len(found) > 3
    assert [path for path, one in found.items() if one.ndim and one.device.type != "meta"] == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", DEEP_AGENTS)
@pytest.mark.parametrize(("begun", "resumed"), [("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")])
def test_a_run_goes_on_elsewhere(name: str, begun: str, resumed: str) -> None:
    first, second = halfway(name, begun), halfway(name, resumed)
    list(first.run(until=150))
    second.load_state_dict(tree.join(*tree.split(first.state_dict())))
    for _, said in second.run():
        assert {value.device.type for value in said.values()} == {resumed}
    assert second.step == 300
