"""The experiments of tabular control: each at a tiny size, each rule both ways, and their parts against the exact."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable

import pytest
import torch

from envs.catalog import load
from envs.simulator import Simulator
from envs.world import World
from experiments import cliff_walking, dyna_maze, maximisation_bias, off_policy_q, windy_grid
from experiments.claim import Claim, Finding, Setting
from experiments.episodes import interval, path, per_episode
from rl.occupancy import visits_within
from rl.tabular.q_learning import QLearning
from rl.train import TrainConfig, Trainer, world_keys
from tests.oracles.dp import table

SETTING = Setting(seed=0, device=torch.device("cpu"))
TINY: dict[str, tuple[Claim, Callable[[], Finding]]] = {
    "cliff": (cliff_walking.CLAIM, lambda: cliff_walking.compare(SETTING, replicas=1, episodes=1)),
    "bias": (maximisation_bias.CLAIM, lambda: maximisation_bias.compare(SETTING, replicas=20, episodes=8)),
    "windy": (windy_grid.CLAIM, lambda: windy_grid.compare(SETTING, replicas=2, steps=400)),
    "dyna": (dyna_maze.CLAIM, lambda: dyna_maze.compare(SETTING, replicas=1, episodes=1, planning=(0, 1, 2))),
    "off-policy": (off_policy_q.CLAIM, lambda: off_policy_q.compare(SETTING, replicas=2, steps=300)),
}
# Each rule, numbers that pass all of its conditions, and for each number those that fail one.
RULES: dict[str, tuple[Callable[..., bool], list[float], list[list[float]]]] = {
    "cliff": (
        cliff_walking.judge,
        [-27.0, -48.0, -24.0, -13.0, -17.0],
        [[-31.0, -19.0], [-61.0, -39.0], [-39.0], [-15.0, -math.inf], [-13.0, -math.inf]],
    ),
    "bias": (maximisation_bias.judge, [0.93, 0.55, 0.15, 0.06], [[0.89], [0.66], [0.05, 0.09], [0.11, -0.01]]),
    "windy": (windy_grid.judge, [171.0, 17.5, 15.0], [[149.0, 191.0], [14.9, 19.1], [17.0]]),
    "dyna": (dyna_maze.judge, [25, 5, 3], [[14, 36], [2, 8], [1, 5]]),
    "off-policy": (off_policy_q.judge, [0.001, 0.5, 3.0], [[0.02], [0.0005], [0.9]]),
}


@pytest.mark.parametrize("name", TINY)
def test_an_experiment_goes_through_at_a_tiny_size(name: str) -> None:
    claim, run = TINY[name]
    finding = run()
    assert list(finding.found) == list(claim.stated)
    assert all(len(row) == len(finding.header) for row in finding.rows)
    assert not any(isinstance(value, float) and math.isnan(value) for value in finding.found.values())
    assert not finding.holds  # after so little


@pytest.mark.parametrize("name", RULES)
def test_a_claim_holds_where_every_condition_does(name: str) -> None:
    rule, good, bad = RULES[name]
    assert rule(*good)
    for i, values in enumerate(bad):
        for value in values:
            assert not rule(*good[:i], value, *good[i + 1 :])


def test_episodes_are_counted_one_by_one() -> None:
    """0 -> 1 -> end, rewards 1 and 2, every action alike: each episode earns 3 in 2 steps."""
    row = table([[(1, 1.0, False)] * 2, [(1, 2.0, True)] * 2], [1.0, 0.0])
    learner = QLearning(2, 2, [1, 2, 3], gamma=1.0, alpha=1.0, omega=0.0, epsilon=(1.0, 1.0), epsilon_steps=1)
    worlds = Simulator(row, world_keys(0, 3, 1), observation=torch.arange(2))
    gained, length = per_episode(Trainer(learner, worlds, TrainConfig(10**6, 1, 1)), 4)
    assert gained.tolist() == [[3.0] * 4] * 3
    assert length.tolist() == [[2] * 4] * 3


def test_what_slipping_costs_on_the_cliff_is_that_of_many_episodes() -> None:
    """200,000 steps of the same policy: its mean return an episode is the exact one to within 5%."""
    world = load("cliff")
    assert isinstance(world, World)
    edge, safe = cliff_walking.exact(world)
    policy = cliff_walking.dp.policy_iteration(world.mdp, 1.0).policy
    worlds = world.simulate(world_keys(0, 200, 1))
    worlds.reset()
    totals = worlds.run(1000, cliff_walking.dp.soft(policy, 4, 0.1))
    assert float(totals.reward.sum() / totals.episodes.sum()) == pytest.approx(edge, rel=0.05)
    assert safe > edge + 20


def test_late_is_the_last_fifth_of_each_replica() -> None:
    gained = torch.arange(20, dtype=torch.float64).view(2, 10)
    learnt = cliff_walking.Learnt(gained, torch.zeros(2, dtype=torch.float64))
    assert learnt.late().tolist() == [8.5, 18.5]
    assert cliff_walking.Learnt(gained[:, :3], learnt.greedy).late().tolist() == [2.0, 12.0]  # at least one


def test_steps_late_are_those_of_the_last_eighth() -> None:
    """16 counts: of the last 20 steps one replica ended 4 episodes and the other 6, 5 in the mean; 4 steps each."""
    ended = torch.zeros(2, 16, dtype=torch.float64)
    ended[:, 13], ended[:, 14] = 3, torch.tensor([5.0, 3.0])
    ended[:, 15] = torch.tensor([7.0, 9.0])
    assert windy_grid.steps_late(ended, every=10) == pytest.approx(20 / 5)
    assert windy_grid.steps_late(torch.zeros(1, 9, dtype=torch.float64), every=10) > 1e9  # none ended


def test_who_went_by_b_went_left() -> None:
    """The world itself: a step to the right ends at once, one to the left is followed by a second, which ends."""
    world = load("maximization-bias")
    assert isinstance(world, World)
    found = []
    for action in range(world.actions):
        worlds, steps = world.simulate(world_keys(0, 1, 1)), 1
        worlds.reset()
        while not worlds.step(torch.tensor([action])).terminated.all():
            steps += 1
        found.append(steps)
    assert sorted(found) == [1] * (world.actions // 2) + [2] * (world.actions // 2)
    length = torch.tensor([[2, 1, 1], [2, 2, 1], [2, 1, 1], [2, 2, 1]])
    assert maximisation_bias.went_left(length).tolist() == [1.0, 0.5, 0.0]


def test_an_interval_is_that_of_the_mean_beside_it() -> None:
    """A tenth of the runs is far off: the mean and its interval know it, the interquartile mean does not."""
    scores = torch.zeros(100, dtype=torch.float64)
    scores[:10] = -50
    mean, low, high = (float(number) for number in re.findall(r"-?[\d.]+", interval(scores, seed=0)))
    error = 1.96 * float(scores.std()) / 10
    assert mean == pytest.approx(-5)
    assert low == pytest.approx(-5 - error, abs=0.5)
    assert high == pytest.approx(-5 + error, abs=0.5)
    assert interval(torch.tensor([3.0], dtype=torch.float64), seed=0) == "3 [3, 3]"


def test_a_path_without_an_end_is_told_in_words() -> None:
    assert [path(length) for length in (15.0, math.inf, -math.inf)] == [15.0, "never arrives", "never arrives"]


def test_tries_of_a_pair_are_the_visits_of_its_state() -> None:
    world = load("zhao-2x2", {"time_limit": "none"})
    assert isinstance(world, World)
    policy = torch.tensor([[0.1, 0.3, 0.2, 0.2, 0.2]], dtype=torch.float64).expand(4, 5)
    found = off_policy_q.tries(world.mdp, policy, 7)
    torch.testing.assert_close(found.sum(1), visits_within(world.mdp, [policy] * 7))
    torch.testing.assert_close(found[:, 1], 0.3 * found.sum(1))


def test_walks_stand_side_by_side_and_are_not_cut() -> None:
    world = load("zhao-5x5", {"time_limit": "none"})
    assert isinstance(world, World)
    uniform = torch.full((25, 5), 0.2, dtype=torch.float64)
    walks = [off_policy_q.walk(world, uniform, world_keys(seed, 2, 1), 150) for seed in (0, 1)]
    steps = list(off_policy_q.transitions(walks))
    assert len(steps) == 150
    assert steps[0].obs.shape == (4, 1)
    assert not any(step.last.any() for step in steps)
    for now, then in itertools.pairwise(steps):
        assert torch.equal(now.next_obs, then.obs)
    assert steps[9].action[2, 0] == walks[1].action[9, 0]


def test_the_first_episode_below_a_bar_is_counted_from_one() -> None:
    mean = torch.tensor([100.0, 40.0, 10.0, 50.0], dtype=torch.float64)
    assert [dyna_maze.until(mean, bar) for bar in (200.0, 45.0, 20.0, 5.0)] == [1, 2, 3, 5]


def test_the_best_length_in_the_dyna_maze_is_at_least_its_shortest_path() -> None:
    world = load("dyna-maze")
    assert isinstance(world, World)
    assert dyna_maze.shortest(world, epsilon=0.0) == pytest.approx(14)
    assert dyna_maze.shortest(world) > 15
