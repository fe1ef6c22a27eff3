"""Random walks and mountain car: verdicts both ways, parts against hand-worked numbers, each claim at a tiny size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from experiments import mc_vs_td, mountain_car, random_walk, walks
from experiments.claim import Setting
from lab import streams
from rl.tabular.prediction import TD0

SETTING = Setting(seed=0, device=torch.device("cpu"))
RULES: list[tuple[Callable[..., bool], list[float], list[tuple[int, float]]]] = [
    (
        random_walk.judge,
        [4.0, 0.265, 1.2, 1.5, 1.0, 0.8],
        [(0, 8.0), (1, 0.3), (1, 0.2), (2, 1.0), (3, 1.1), (4, 1.2), (4, 0.8), (5, 0.0), (5, 0.95)],
    ),
    (mc_vs_td.judge, [0.5, 0.0, 0.7, 1e-9], [(0, 0.95), (1, 3.0), (2, 1.0), (3, 1e-3)]),
    (mountain_car.judge, [150.0, 1.3, 0.8], [(0, 200.0), (1, 1.0), (2, 1.0)]),
]


@pytest.mark.parametrize(("rule", "good", "bad"), RULES)
def test_each_bar_decides(rule: Callable[..., bool], good: list[float], bad: list[tuple[int, float]]) -> None:
    assert rule(*good)
    for place, value in bad:
        assert not rule(*(value if k == place else number for k, number in enumerate(good)))


def test_errors_of_a_walk_are_those_of_a_plain_loop() -> None:
    """TD(0) on lists, two runs of two episodes of the five-state walk, lived by the same actions; truth is s / 6."""
    world, seeds, alpha = walks.walk_of("random-walk-5"), [3, 4], 0.3
    table: dict[str, Any] = {"gamma": 1.0, "alpha": alpha, "omega": 0.0, "initial": 0.5}
    found = walks.errors(TD0(walks.uniform(world), seeds, **table), world, seeds, episodes=2)
    exact = walks.truth(world).tolist()
    torch.testing.assert_close(walks.truth(world)[1:-1] * 6, torch.arange(1, 6).double())
    for run, seed in enumerate(seeds):
        agent = TD0(walks.uniform(world), [seed], **table)  # draws the actions, and is told what came of them
        one = world.simulate(torch.tensor([streams.derive(seed, "world")]))
        v = [0.5] * world.mdp.states  # the ends too, which must not count

        def rms(v: list[float] = v) -> float:
            return math.sqrt(sum((v[s] - exact[s]) ** 2 for s in range(1, 6)) / 5)

        curve, s = [rms()], one.reset().view(1, 1)
        while len(curve) < 3:
            action, _ = agent.act(s, agent.memory(1))
            step = one.step(action.view(1))
            over, after = bool(step.terminated), int(step.obs)
            v[int(s)] += alpha * (float(step.reward) + (0.0 if over else v[after]) - v[int(s)])
            agent.step += 1
            s = one.reset(step.terminated).view(1, 1)
            if over:
                curve.append(rms())
        assert found[run].tolist() == pytest.approx(curve, abs=1e-12)


def test_batches_worked_by_hand() -> None:
    """B -> C -> D -> C -> end on the left would be longer; here C -> D -> E -> right, and C -> B -> A -> left."""
    count = torch.zeros(1, 1, 5, 7, dtype=torch.float64)
    for s, after in ((2, 4), (3, 5), (4, 6), (2, 2), (1, 1), (0, 0)):
        count[0, 0, s, after] += 1
    won = torch.tensor([[[0.0, 0, 1, 1, 1]]], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(mc_vs_td.mean_returns(count, won)[0, 0], expected)
    torch.testing.assert_close(mc_vs_td.certainty_equivalence(count)[0, 0], expected)
    torch.testing.assert_close(mc_vs_td.batch_td0(count)[0, 0], expected, atol=1e-8, rtol=0)


def test_a_tiny_one_runs_from_end_to_end() -> None:
    finding = mc_vs_td.compare(SETTING, runs=2, episodes=12)
    assert list(finding.found) == list(mc_vs_td.CLAIM.stated)
    assert finding.found["largest difference of batch TD(0) from certainty equivalence"] < 1e-6
    errors = random_walk.sweep(SETTING, "n", 2.0, runs=2, episodes=1)
    assert errors.shape == (len(random_walk.ALPHAS), 2)
    assert (errors < 0.6).all()
