"""The loop: what it hands to agents, and what it reports (tests/rl/test_resume.py: that a killed run resumes)."""

from typing import Any

import pytest
import torch

from envs.simulator import Simulator
from lab import streams
from rl.train import TrainConfig, Trainer, world_keys
from rl.types import Transition
from tests.oracles.dp import table


class Walker:
    """Always action 0; remembers all that it was told."""

    def __init__(self, replicas: int) -> None:
        self.replicas, self.device, self.seen = replicas, torch.device("cpu"), []

    def memory(self, worlds: int) -> torch.Tensor:
        return torch.zeros(self.replicas, worlds, 1)

    def act(self, obs: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(obs.shape[:2], dtype=torch.int64), memory + 1

    def update(self, transition: Transition) -> dict[str, torch.Tensor]:
        self.seen.append(transition)
        return {"told": torch.full((self.replicas,), float(len(self.seen)))} if len(self.seen) % 2 else {}

    def policy(self, obs: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(obs.shape[:2], dtype=torch.int64), memory + 1

    def values(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(self.replicas, len(obs))

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
    assert all((value == value[0, 0]).all() and value.shape[:2] == (2, 3) for value in values)
    return [value[0, 0].tolist() for value in values]


def test_an_end_stops_the_bootstrap() -> None:
    seen, _ = walk(time_limit=None, steps=15)
    assert column(seen, "obs") == [0, 1, 2, 0, 1]
    assert column(seen, "next_obs") == [1, 2, 2, 1, 2]
    assert column(seen, "discount") == [1, 1, 0, 1, 1]
    assert column(seen, "last") == [False, False, True, False, False]
    assert column(seen, "memory") == [[0], [1], [2], [0], [1]]


def test_a_time_limit_starts_anew_but_bootstraps_from_the_true_successor() -> None:
    seen, _ = walk(time_limit=2, steps=15)
    assert column(seen, "obs") == [0, 1, 0, 1, 0]
    assert column(seen, "next_obs") == [1, 2, 1, 2, 1]
    assert column(seen, "discount") == [1, 1, 1, 1, 1]
    assert column(seen, "last") == [False, True, False, True, False]
    assert column(seen, "memory") == [[0], [1], [0], [1], [0]]


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
