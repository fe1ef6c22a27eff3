"""The named worlds move by move: walked by hand as the books say, and beside Gymnasium's worlds of the same name."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import envs
from lab import streams


def gathered(mdp: envs.TabularMDP, s: int, a: int) -> dict[tuple[int, float, bool], float]:
    """Probability of each distinct outcome."""
    chances: dict[tuple[int, float, bool], float] = {}
    tables = (mdp.prob, mdp.next_state, mdp.reward, mdp.terminated)
    for p, *outcome in zip(*(table[s, a].tolist() for table in tables), strict=True):
        if p > 0:
            chances[tuple(outcome)] = chances.get(tuple(outcome), 0.0) + p
    return chances


COMPASS = {
    "up": "N",
    "right": "E",
    "down": "S",
    "left": "W",
    "up-right": "NE",
    "down-right": "SE",
    "down-left": "SW",
    "up-left": "NW",
}


@pytest.mark.parametrize(("name", "gusts"), [("windy", [0]), ("windy-king", [0]), ("windy-stochastic", [-1, 0, 1])])
def test_the_wind_blows_as_in_example_6_5(name: str, gusts: list[int]):
    """Every transition, walked by hand: 7 rows and 10 columns, upward by the wind of the column that is left."""
    world = envs.load(name)
    assert (world.layout.glyphs[3], world.mdp.states) == ("S......G..", 70)
    for s in set(range(70)) - {37}:
        r, c = divmod(s, 10)
        blown = {3: 1, 4: 1, 5: 1, 6: 2, 7: 2, 8: 1}.get(c, 0)
        for a, action in enumerate(world.action_names):
            where = COMPASS[action]
            expected: dict[tuple[int, float, bool], float] = {}
            for gust in gusts:
                row = r - ("N" in where) + ("S" in where) - (blown + gust if blown else 0)
                col = c + ("E" in where) - ("W" in where)
                to = min(max(row, 0), 6) * 10 + min(max(col, 0), 9)
                expected[to, -1.0, to == 37] = expected.get((to, -1.0, to == 37), 0.0) + 1 / len(gusts)
            assert gathered(world.mdp, s, a) == pytest.approx(expected), (s, action)


@pytest.mark.parametrize(
    ("name", "start", "blocked"),
    [
        ("dyna-maze", (2, 0), {(1, 2), (2, 2), (3, 2), (0, 7), (1, 7), (2, 7), (4, 5)}),
        ("blocking-maze", (5, 3), {(3, c) for c in range(8)}),
        ("blocking-maze-after", (5, 3), {(3, c) for c in range(1, 9)}),
        ("shortcut-maze", (5, 3), {(3, c) for c in range(1, 9)}),
        ("shortcut-maze-after", (5, 3), {(3, c) for c in range(1, 8)}),
    ],
)
def test_the_mazes_of_chapter_8_are_blocked_where_the_figures_are(
    name: str, start: tuple[int, int], blocked: set[tuple[int, int]]
):
    """Every transition, walked by hand in 6 rows and 9 columns; whoever is inside a closed gate is nobody's concern."""
    world = envs.load(name)
    mdp, cells = world.mdp, [tuple(cell) for cell in world.layout.cell.tolist()]
    assert cells[int(mdp.start.argmax())] == start
    moves = dict(zip(["up", "right", "down", "left"], [(-1, 0), (0, 1), (1, 0), (0, -1)], strict=True))
    for s, (r, c) in enumerate(cells):
        if (r, c) in blocked | {(0, 8)}:
            continue
        for a, action in enumerate(world.action_names):
            to = (r + moves[action][0], c + moves[action][1])
            if not (0 <= to[0] < 6 and 0 <= to[1] < 9) or to in blocked:
                to = (r, c)
            assert gathered(mdp, s, a) == {(cells.index(to), float(to == (0, 8)), to == (0, 8)): 1.0}, (r, c, action)


DRY = {"slip.forward": 1, "slip.left": 0, "slip.right": 0}
SLIPPERY = {"slip.forward": "1/3", "slip.left": "1/3", "slip.right": "1/3"}


@pytest.mark.parametrize(
    ("ours", "overrides", "theirs", "options"),
    [
        ("frozenlake-4x4", {}, "FrozenLake-v1", {}),
        ("frozenlake-4x4", DRY, "FrozenLake-v1", {"is_slippery": "false"}),
        ("frozenlake-8x8", {}, "FrozenLake8x8-v1", {}),
        ("frozenlake-8x8", DRY, "FrozenLake8x8-v1", {"is_slippery": "false"}),
        ("cliff", {}, "CliffWalking-v1", {}),
        ("cliff", SLIPPERY, "CliffWalkingSlippery-v1", {}),
    ],
)
def test_our_file_is_gymnasiums_world(ours: str, overrides: dict[str, Any], theirs: str, options: dict[str, Any]):
    world, lifted = envs.load(ours, overrides), envs.load(theirs, options)
    assert world.action_names == lifted.action_names
    assert (world.discount, torch.equal(world.mdp.start, lifted.mdp.start)) == (lifted.discount, True)
    goal, cliff = (world.layout.shows(look).flatten() for look in ("goal", "forbidden"))  # no walls: a cell is a state
    for s in (~goal & ~cliff).nonzero().flatten().tolist():  # theirs goes on in the goal; on the cliff nobody stands
        for a in range(world.actions):
            assert gathered(world.mdp, s, a) == pytest.approx(gathered(lifted.mdp, s, a), abs=1e-15), (s, a)
    assert world.mdp.terminated[goal].all()


@pytest.mark.parametrize("name", ["Taxi-v4", "CliffWalking-v1"])
def test_a_simulated_lifted_world_moves_as_gymnasiums(name: str):
    env = gymnasium.make(name).unwrapped
    env.reset(seed=0)
    world = envs.load(name, {"time_limit": 50})
    worlds = world.simulate(streams.keys(3, "world", 32))
    states, actions = worlds.reset(), np.random.default_rng(4).integers(0, world.actions, (120, 32))
    for chosen in actions:
        step = worlds.step(torch.from_numpy(chosen))
        for n, (s, a) in enumerate(zip(states.tolist(), chosen.tolist(), strict=True)):
            env.s = s
            obs, reward, terminated, _, _ = env.step(a)
            assert (obs, reward, terminated) == (int(step.obs[n]), float(step.reward[n]), bool(step.terminated[n]))
        states = worlds.reset(step.terminated | step.truncated)
