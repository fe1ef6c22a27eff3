"""The loop: what it hands to agents, what it reports, and that a killed run resumes bit for bit."""

from typing import Any

import pytest
import torch

from envs.catalog import load
from envs.simulator import Simulator
from lab import streams, tree
from rl.agents import DQNConfig, QLearningConfig, build_dqn, build_q_learning, simulate
from rl.train import TrainConfig, Trainer, world_keys
from rl.types import Transition
from tests.oracles.dp import table


class Walker:
    """Always action 0; remembers all that it was told."""

    def __init__(self, replicas: int) -> None:
        self.replicas, self.device, self.seen = replicas, torch.device("cpu"), []

    def act(self, obs: torch.Tensor, explore: bool) -> torch.Tensor:
        assert explore
        return torch.zeros(obs.shape[:2], dtype=torch.int64)

    def update(self, transition: Transition) -> dict[str, torch.Tensor]:
        self.seen.append(transition)
        return {"told": torch.full((self.replicas,), float(len(self.seen)))} if len(self.seen) % 2 else {}

    def q_values(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(self.replicas, len(obs), 1)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


# 0 -> 1 -> 2 -> end, rewards 1, 2, 3.
ROW = table([[(1, 1.0, False)], [(2, 2.0, False)], [(2, 3.0, True)]], [1.0, 0.0, 0.0])


def walk(time_limit: int | None, steps: int, **config: int) -> tuple[list[Transition], list[tuple[int, dict]]]:
    agent = Walker(2)
    worlds = Simulator(ROW, world_keys(0, 2, 3), observation=torch.arange(3), time_limit=time_limit)
    trainer = Trainer(agent, worlds, TrainConfig(steps=steps, worlds=3, **config))
    return agent.seen, list(trainer.run())


def column(seen: list[Transition], name: str) -> list:
    """The field of the first world, in time; all worlds walk alike."""
    values = [getattr(transition, name) for transition in seen]
    assert all((value == value[0, 0]).all() and value.shape == (2, 3) for value in values)
    return [value[0, 0].item() for value in values]


def test_an_end_stops_the_bootstrap() -> None:
    seen, _ = walk(time_limit=None, steps=15)
    assert column(seen, "obs") == [0, 1, 2, 0, 1]
    assert column(seen, "next_obs") == [1, 2, 2, 1, 2]
    assert column(seen, "discount") == [1, 1, 0, 1, 1]
    assert column(seen, "last") == [False, False, True, False, False]


def test_a_time_limit_starts_anew_but_bootstraps_from_the_true_successor() -> None:
    seen, _ = walk(time_limit=2, steps=15)
    assert column(seen, "obs") == [0, 1, 0, 1, 0]
    assert column(seen, "next_obs") == [1, 2, 1, 2, 1]
    assert column(seen, "discount") == [1, 1, 1, 1, 1]
    assert column(seen, "last") == [False, True, False, True, False]


def test_reports_count_steps_of_one_replica_and_average_what_happened_since_the_last() -> None:
    _, reports = walk(time_limit=None, steps=33, report_every=6)
    assert [step for step, _ in reports] == [6, 12, 18, 24, 30, 33]
    first, second = reports[0][1], reports[1][1]
    assert first["reward"].tolist() == [1.5, 1.5]  # 1, 2
    assert second["reward"].tolist() == [2.0, 2.0]  # 3, 1
    assert first["return"].isnan().all()
    assert first["episodes"].tolist() == [0, 0]
    assert second["return"].tolist() == [6.0, 6.0]
    assert second["length"].tolist() == [3.0, 3.0]
    assert second["episodes"].tolist() == [3, 3]
    assert reports[3][1]["return"].tolist() == [6.0, 6.0]
    assert first["told"].tolist() == [1.0, 1.0]
    assert second["told"].tolist() == [3.0, 3.0]


def test_worlds_of_the_wrong_number_are_refused() -> None:
    worlds = Simulator(ROW, streams.keys(0, "x", 5), observation=torch.arange(3))
    with pytest.raises(ValueError, match="there are 5 worlds, expected 6: 3 for each of 2 replicas"):
        Trainer(Walker(2), worlds, TrainConfig(worlds=3))


def same(a: Any, b: Any) -> bool:
    """Equal trees, bit for bit (nan equals nan)."""
    tensors, skeleton = tree.split(a)
    others, other = tree.split(b)
    return skeleton == other and all(
        one.dtype == others[name].dtype and torch.equal(one.nan_to_num(7.5), others[name].nan_to_num(7.5))
        for name, one in tensors.items()
    )


LEARNERS = {
    "q-learning on the slippery lake": ("FrozenLake-v1", QLearningConfig(exploration_steps=300), build_q_learning),
    "dqn on the slippery lake": ("FrozenLake-v1", DQNConfig(hidden=(8,), learning_starts=40, capacity=90), build_dqn),
    "dqn on CartPole": ("CartPole-v1", DQNConfig(hidden=(8,), learning_starts=40, target_every=5), build_dqn),
}


@pytest.mark.parametrize("name", list(LEARNERS))
def test_a_run_killed_between_episodes_resumes_bit_for_bit(name: str) -> None:
    """Stopped at step 150 of 300 amid episodes and exploration, and put together again from its saved tree."""
    world_name, config, build = LEARNERS[name]
    world = load(world_name)

    def trainer() -> Trainer:
        worlds = simulate(config, world, replicas=2, worlds=3, seed=1)
        return Trainer(build(config, world, 2, 1), worlds, TrainConfig(steps=300, worlds=3, report_every=30))

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
