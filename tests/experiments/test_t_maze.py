"""The T-maze claim, small; its rule; and what counts as a success."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import envs
from envs.world import World
from experiments.claim import Setting
from experiments.t_maze import CLAIM, compare, judge, judged
from rl.types import Transition


class Fixed:
    """Two replicas that go right for three steps and then up, or down."""

    replicas, device = 2, torch.device("cpu")

    def memory(self, worlds: int) -> torch.Tensor:
        return torch.zeros(2, worlds, 1)

    def policy(self, obs: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        turn = torch.tensor([[0], [2]]).expand(2, obs.shape[1])  # up, right, down, left
        return torch.where(memory[..., 0] < 3, 1, turn), memory + 1

    act = policy

    def update(self, transition: Transition) -> dict[str, torch.Tensor]:
        return {}

    def values(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(2, len(obs))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_success_is_told_from_failure() -> None:
    """Who always goes up succeeds where the cue is north, and who always goes down in exactly the other episodes."""
    world = envs.load("t-maze", {"t-maze.length": 3, "time_limit": 30})
    assert isinstance(world, World)

    share, value = judged(Fixed(), world, seed=0, episodes=200)
    assert ((share > 0.4) & (share < 0.6)).all()
    torch.testing.assert_close(value, (4.1 * share - 0.1) * 0.98**3, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        ((1.0, 0.99, 0.5), True),
        ((0.99, 1.0, 0.4), True),
        ((0.98, 1.0, 0.5), False),
        ((1.0, 0.98, 0.5), False),
        ((1.0, 1.0, 0.61), False),
        ((1.0, 1.0, 0.39), False),
    ],
)
def test_the_rule(found: tuple[float, float, float], holds: bool) -> None:
    assert judge(*found) == holds


def test_a_small_run_finds_all_numbers() -> None:
    """A corridor of 2, two replicas, a few hundred steps: the form of what is found, not what it is."""
    shares: list[float] = []
    setting = Setting(seed=0, device=torch.device("cpu"), report=lambda share, note: shares.append(share))
    finding = compare(setting, length=2, replicas=2, steps={"gru": 1_200, "transformer": 1_200, "none": 1_200})
    assert list(finding.found) == list(CLAIM.stated)
    assert all(0 <= float(share) <= 1 for share in finding.found.values())
    assert shares == sorted(shares)
    assert len(finding.rows) == 3
