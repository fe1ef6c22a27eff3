"""The named worlds against what is printed of them.

Numbers in tables are typed from the sources; a value agrees if it rounds to the printed digits.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch

import envs
from rl import dp


def rounds_to(found: torch.Tensor, printed: list[list[float]], digits: int) -> None:
    """`found`, in map order, is `printed` to its digits (and not a rounding error more)."""
    expected = np.array(printed, dtype=float)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=0.5 * 10.0**-digits + 1e-9)


def uniform(world: envs.World) -> torch.Tensor:
    """The value of acting at random."""
    policy = torch.full((world.mdp.states, world.actions), 1 / world.actions, dtype=torch.float64)
    return dp.evaluate_exactly(world.mdp, policy, world.discount)


def optimal(world: envs.World) -> torch.Tensor:
    return dp.policy_iteration(world.mdp, world.discount).values


def mean(world: envs.World, values: torch.Tensor) -> float:
    return float(world.mdp.start @ values)


@pytest.mark.parametrize("name", envs.names())
def test_every_named_world_says_where_it_comes_from_and_what_is_best(name: str):
    world = envs.load(name)
    assert world.name == name
    assert len(world.source) > 10
    assert world.optimum is not None
    assert len(world.optimum.source) > 10
    assert world.optimum.discount == world.discount
    values = optimal(world)
    assert mean(world, values) == pytest.approx(world.optimum.value, abs=world.optimum.tolerance)
    if world.optimum.values:
        rounds_to(values, [list(row) for row in world.optimum.values], 1)


# Zhao (2025)


def test_zhao_2x2_has_the_books_values_and_every_reward_can_be_set():
    rounds_to(optimal(envs.load("zhao-2x2")), [[9, 10], [10, 10]], 9)
    dear = {"reward.bump": -3, "reward.forbidden": -7, "reward.goal": 2, "reward.step": -0.5}
    world = envs.load("zhao-2x2", dear)
    up, right, down, left, stay = world.mdp.expected_reward().T.tolist()
    assert (up, down) == ([-3, -3, -0.5, -7], [-0.5, 2, -3, -3])
    assert (left, right) == ([-3, -0.5, -3, -0.5], [-7, -3, 2, -3])
    assert stay == [-0.5, -7, -0.5, 2]


@pytest.mark.parametrize(
    ("overrides", "printed"),
    [
        (
            {},
            [
                [5.8, 5.6, 6.2, 6.5, 5.8],
                [6.5, 7.2, 8, 7.2, 6.5],
                [7.2, 8, 10, 8, 7.2],
                [8, 10, 10, 10, 8],
                [7.2, 9, 10, 9, 8.1],
            ],
        ),
        (
            {"discount": 0.5},
            [[0] * 5, [0, 0, 0, 0, 0.1], [0, 0, 2, 0.1, 0.1], [0, 2, 2, 2, 0.2], [0, 1, 2, 1, 0.5]],
        ),
        (
            {"reward.forbidden": -10},
            [
                [3.5, 3.9, 4.3, 4.8, 5.3],
                [3.1, 3.5, 4.8, 5.3, 5.9],
                [2.8, 2.5, 10, 5.9, 6.6],
                [2.5, 10, 10, 10, 7.3],
                [2.3, 9, 10, 9, 8.1],
            ],
        ),
    ],
    ids=["fig. 3.4a", "fig. 3.4b", "fig. 3.4d"],
)
def test_zhao_5x5_has_the_printed_values(overrides: dict[str, Any], printed: list[list[float]]):
    rounds_to(optimal(envs.load("zhao-5x5", overrides)), printed, 1)


# Sutton & Barto (2018)


def test_the_gridworld_of_example_3_5():
    world = envs.load("sutton-3.5")
    rounds_to(
        uniform(world),
        [
            [3.3, 8.8, 4.4, 5.3, 1.5],
            [1.5, 3.0, 2.3, 1.9, 0.5],
            [0.1, 0.7, 0.7, 0.4, -0.4],
            [-1.0, -0.4, -0.4, -0.6, -1.2],
            [-1.9, -1.3, -1.2, -1.4, -2.0],
        ],
        1,
    )
    rounds_to(optimal(world)[:5], [[21.98, 24.42, 21.98, 19.42, 17.48]], 2)


def test_the_gridworld_of_example_4_1():
    world = envs.load("sutton-4.1")
    rounds_to(uniform(world), [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]], 9)
    assert world.mdp.start.tolist() == [0, *[1 / 14] * 14, 0]


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("windy", 15),
        ("windy-king", 7),
        ("cliff", 13),
        ("dyna-maze", 14),
        ("blocking-maze", 10),
        ("blocking-maze-after", 16),
        ("shortcut-maze", 16),
        ("shortcut-maze-after", 10),
        ("key-door", 14),
        ("maze", 48),
    ],
)
def test_the_shortest_way_has_the_stated_steps(name: str, steps: int):
    """Found by walking: the states that can be entered in h moves, for h = 1, 2, ... without any value."""
    mdp = envs.load(name).mdp
    reached = set(mdp.start.nonzero().flatten().tolist())
    for taken in range(1, 200):
        entered = set()
        for s in reached:
            for a in range(mdp.actions):
                if mdp.terminated[s, a, 0]:
                    assert taken == steps
                    return
                entered.add(int(mdp.next_state[s, a, 0]))
        reached = entered
    raise AssertionError("no end was found")


def test_the_mazes_before_and_after_have_equal_states_and_gates_that_open():
    worlds = {name: envs.load(name) for name in envs.names() if name.startswith(("blocking", "shortcut"))}
    assert len(worlds) == 4
    assert {world.mdp.states for world in worlds.values()} == {47}
    cells = [world.layout.cell.tolist() for world in worlds.values()]
    assert all(cell == cells[0] for cell in cells)
    opened = envs.load("shortcut-maze", {"cell.right-gate.solid": "false"})
    assert torch.equal(opened.mdp.next_state, worlds["shortcut-maze-after"].mdp.next_state)
    assert torch.equal(worlds["blocking-maze-after"].mdp.next_state, worlds["shortcut-maze"].mdp.next_state)


def test_random_walks_are_worth_what_the_book_says():
    five, nineteen = envs.load("random-walk-5"), envs.load("random-walk-19")
    assert uniform(five).tolist() == pytest.approx([0, *(i / 6 for i in range(1, 6)), 0], abs=1e-12)
    assert uniform(nineteen).tolist() == pytest.approx([0, *(i / 10 for i in range(-9, 10)), 0], abs=1e-12)
    assert (mean(five, uniform(five)), mean(nineteen, uniform(nineteen))) == pytest.approx((0.5, 0.0), abs=1e-12)


@pytest.mark.parametrize(("right", "printed", "digits"), [(0.59, -11.6, 1), (0.95, -44, 0), (0.05, -82, 0)])
def test_the_short_corridor_for_one_who_cannot_tell_its_states(right: float, printed: float, digits: int):
    """The best of all such policies, and those of an agent that is 0.1-greedy to the right and to the left."""
    world = envs.load("short-corridor")
    policy = torch.tensor([[1 - right, right]] * 4, dtype=torch.float64)
    value = mean(world, dp.evaluate_exactly(world.mdp, policy, 1.0))
    assert value == pytest.approx((2 * right - 4) / (right * (1 - right)), abs=1e-9)  # by hand, from Bellman's equation
    assert value == pytest.approx(printed, abs=10.0**-digits)  # the book cuts -11.66 and -44.2 and -82.1
    assert len(set(world.observe("index")[:3].tolist())) == 1


def test_bias_misleads_to_the_left_and_right_is_best():
    solution = dp.policy_iteration(envs.load("maximization-bias").mdp, 1.0)
    assert solution.q[2].tolist() == pytest.approx([-0.1, 0.0] * 5, abs=1e-12)


def test_the_gambler_and_the_cars_take_other_numbers():
    fair = envs.load("gambler", {"gambler.p": "0.5", "gambler.goal": 40})
    assert fair.mdp.states == 41
    assert dp.value_iteration(fair.mdp, 1.0).values[10] == pytest.approx(0.25)
    assert envs.load("car-rental", {"car-rental.max_cars": 4}).mdp.states == 25


def test_the_cars_are_worth_most_where_there_are_most():
    """Figure 4.2 shows values that rise to both sides; more cars are never worse."""
    values = optimal(envs.load("car-rental")).view(21, 21)
    assert (values.diff(dim=0) > 0).all()
    assert (values.diff(dim=1) > 0).all()
    assert math.floor(float(values.min()) / 10) * 10 == 420


# Keys, cues and mazes


def test_the_key_must_be_fetched_before_the_door_lets_through():
    world = envs.load("key-door")
    layout = world.layout
    assert [mode.split()[0] for mode in layout.modes[1:]] == ["yellow"] * (len(layout.modes) - 1)
    goal = tuple(layout.shows("goal").nonzero()[0].tolist())
    reached = {int(world.mdp.start.argmax())}
    while True:
        more = reached | set(world.mdp.next_state[list(reached)].flatten().tolist())
        if more == reached:
            break
        reached = more
    ends = [s for s in reached if tuple(layout.cell[s].tolist()) == goal]
    assert ends
    assert all("door open" in layout.modes[layout.mode[s]] for s in ends)


@pytest.mark.parametrize("length", [1, 2, 10, 40])
def test_a_t_maze_of_any_length_asks_for_its_cue(length: int):
    world = envs.load("t-maze", {"t-maze.length": length})
    assert mean(world, optimal(world)) == pytest.approx(4 * 0.98**length, abs=1e-12)
    start = world.mdp.start.nonzero().flatten()
    assert len(start) == 2
    index = world.observe("index")
    assert index[start[0]] != index[start[1]]  # the cue is seen
    cell, mode = world.layout.cell, world.layout.mode
    hidden = [index[(cell[:, 1] == c) & (cell[:, 0] == 2)] for c in range(2, length + 2)]
    assert all(len(set(seen.tolist())) == 1 for seen in hidden)  # and nowhere else
    assert len({int(seen[0]) for seen in hidden}) == (2 if length > 1 else 1)  # corridor and junction
    blind = torch.full((world.mdp.states, 4), 0.0, dtype=torch.float64)
    blind[:, 1], blind[cell[:, 1] == length + 1] = 1.0, torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    guessed = dp.evaluate_exactly(world.mdp, blind, world.discount)  # always north
    assert mean(world, guessed) == pytest.approx((4 - 0.1) / 2 * 0.98**length, abs=1e-12)
    assert len(set(mode.tolist())) == 2


@pytest.mark.parametrize(("size", "seed"), [(2, 0), (7, 3), (20, 11)])
def test_a_mazes_value_is_that_of_its_one_way(size: int, seed: int):
    world = envs.load("maze", {"maze.size": size, "maze.seed": seed})
    rows, distance, front = world.layout.glyphs, {(1, 1): 0}, [(1, 1)]
    for r, c in front:
        for n in ((r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)):
            if rows[n[0]][n[1]] != "#" and n not in distance:
                distance[n] = distance[r, c] + 1
                front.append(n)
    goal = distance[2 * size - 1, 2 * size - 1]
    assert mean(world, optimal(world)) == pytest.approx(0.99 ** (goal - 1), abs=1e-12)


# Gymnasium


def test_frozen_lake_has_the_known_numbers():
    world = envs.load("frozenlake-4x4")
    assert mean(world, optimal(world)) == pytest.approx(0.542026, abs=5e-7)
    best = dp.finite_horizon(world.mdp, 100).values[100]
    assert mean(world, best) == pytest.approx(0.7442, abs=5e-5)


def test_taxi_has_the_known_mean_return():
    world = envs.load("Taxi-v4")
    assert world.discount == 1
    assert mean(world, optimal(world)) == pytest.approx(7.93, abs=5e-3)
