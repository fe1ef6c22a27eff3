"""The claim on unseen mazes, small; its rule; and the ruler it measures with."""

from __future__ import annotations

import math
from typing import Any

import torch

from experiments.claim import Setting
from experiments.unseen_mazes import ROOMS, SEEN, UNSEEN, compare, judge, mazes, near, sets, shortest, walked
from rl import dp
from rl.types import Transition


class Fixed:
    """One replica that does in each state of a world what it is told."""

    replicas, device = 1, torch.device("cpu")

    def __init__(self, does: torch.Tensor) -> None:
        self.does = does

    def memory(self, worlds: int) -> torch.Tensor:
        return torch.zeros(1, worlds, 0)

    def policy(self, obs: torch.Tensor, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.does[None], memory

    act = policy

    def update(self, transition: Transition) -> dict[str, torch.Tensor]:
        return {}

    def values(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.zeros(1, len(obs))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def breadth_first(planes: torch.Tensor) -> int:
    """Steps from the agent to the goal on a map of planes (agent, wall, goal, ...), counted by flooding."""
    free, goal = planes[1] == 0, planes[2] > 0
    reached, steps = planes[0] > 0, 0
    while not (reached & goal).any():
        grown = reached.clone()
        for shift, axis in ((1, 0), (-1, 0), (1, 1), (-1, 1)):
            grown |= reached.roll(shift, axis)
        reached, steps = grown & free, steps + 1
    return steps


def test_the_ruler() -> None:
    """The shortest ways are those of a flood; the best policy walks them, and one that always goes up never arrives."""
    world = mazes(6, 3, rooms=3)
    starts = (world.mdp.start > 0).nonzero()[:, 0]
    best = shortest(world)
    assert best.tolist() == [breadth_first(world.observe("planes")[s]) for s in starts]
    good = dp.value_iteration(world.mdp, 0.9).policy
    ways = walked(Fixed(good), world)
    assert ways.tolist() == [best.tolist()]
    assert near(ways, best).tolist() == [1.0]
    assert walked(Fixed(torch.zeros_like(good)), world).tolist() == [[math.inf] * 6]
    assert near(torch.tensor([[10.0, 11.0, 12.0, math.inf]]).double(), torch.full((4,), 10.0).double()) == 0.5


def test_no_new_maze_is_an_old_one() -> None:
    old, familiar, new = sets(ROOMS, SEEN, UNSEEN)
    seen, same, unseen = (
        {part.observe("planes")[0, 1].to(torch.uint8).numpy().tobytes() for part in world.parts}
        for world in (old, familiar, new)
    )
    assert len(unseen) == UNSEEN
    assert not seen & unseen
    assert seen == same
    assert old.parts[0].observe("planes").shape[-1] == 2 * ROOMS + 1


def test_the_rule() -> None:
    assert judge(0.95)
    assert not judge(0.949)


def test_a_small_run() -> None:
    """Untrained policies do not find their way; the finding's parts fit each other."""
    shares: list[float] = []
    setting = Setting(0, torch.device("cpu"), report=lambda share, note: shares.append(share))
    finding = compare(setting, rooms=3, seen=8, unseen=5, replicas=2, steps=1_024, worlds=8)
    assert not finding.holds
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert [len(row) for row in finding.rows] == [len(finding.header)] * 2
