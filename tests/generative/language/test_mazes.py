"""The judge against scipy's shortest paths; the splits, the walkers and the order of preference."""

from __future__ import annotations

import math
import random

import pytest

from generative.language.mazes import MOVES, WALKERS, Maze, MazeError, demonstrate, demonstrations, draw, judge, step
from tests.oracles.preference import shortest_walk

MAZE = "..#.G\n.#...\nS..#.\n"


def walls(text: str) -> str:
    return text.replace("S", ".").replace("G", ".")


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (3, 6)])
def test_breadth_first_search_equals_scipys_shortest_path(size: tuple[int, int]):
    for i in range(100):
        text = draw(3, i, rows=size[0], columns=size[1], nearest=2)
        assert [len(row) for row in text.splitlines()] == [size[1]] * size[0]
        assert judge(text, "").shortest == shortest_walk(text)
        assert shortest_walk(text) >= 2


def test_distances_hold_every_cell_that_scipy_can_reach():
    for i in range(20):
        text = draw(4, i)
        rows, reached = text.splitlines(), Maze(text).distances()
        for cell in Maze(text).floor() - {Maze(text).goal}:
            marks = [list(walls(row)) for row in rows]
            goal = Maze(text).goal
            marks[goal[0]][goal[1]], marks[cell[0]][cell[1]] = "G", "S"
            assert reached.get(cell, math.inf) == shortest_walk("\n".join("".join(row) for row in marks))


@pytest.mark.parametrize(
    ("moves", "valid", "optimal"),
    [
        ("RRURRU", True, True),
        ("RRURUR", True, True),
        ("RRURRUDU", True, False),  # leaves the goal and comes back
        ("RLRRURRU", True, False),
        ("RRURRUD", False, False),  # passes through the goal
        ("RRURR", False, False),  # stops before it
        ("RRUURRU", False, False),  # through the wall at the top
        ("LRRRURRU", False, False),  # over the left edge and back
        ("RRURRURL", False, False),  # over the right edge and back
        ("DURRURRU", False, False),  # below the bottom and back
        ("RRXURRU", False, False),
        ("", False, False),
    ],
)
def test_walks_are_judged_as_by_hand(moves: str, valid: bool, optimal: bool):
    found = judge(MAZE, moves)
    assert (found.valid, found.optimal, found.length, found.shortest) == (valid, optimal, len(moves), 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("S.\n.G.\n", r"rows have lengths \[2, 3\]"),
        ("S.\n.x\n", "holds 'x'"),
        ("S.\n..\n", "exactly one S and one G"),
        ("", "rows have lengths"),
        ("S#G\n", "cannot be reached"),
    ],
)
def test_a_text_that_is_no_maze_is_refused_in_one_line(text: str, message: str):
    with pytest.raises(MazeError, match=message) as caught:
        judge(text, "R")
    assert "\n" not in str(caught.value)


def test_a_maze_depends_on_its_seed_and_index_alone_and_the_splits_never_share_walls():
    train = [draw(0, i, rows=4, columns=4) for i in range(600)]
    test = [draw(seed, i, test=True, rows=4, columns=4) for seed in (0, 1) for i in range(100)]
    assert [draw(0, i, rows=4, columns=4) for i in (3, 599)] == [train[3], train[599]]
    assert len(set(train)) > 580
    assert not {walls(text) for text in train} & {walls(text) for text in test}
    assert draw(1, 3, rows=4, columns=4) != train[3]


def test_every_walker_is_what_it_says():
    """The shortest is optimal; the straight one valid and sometimes long; the blind one as long as without walls."""
    judged = {name: [] for name in WALKERS}
    for i in range(200):
        text = draw(5, i, rows=5, columns=5)
        for name, (walker, _) in WALKERS.items():
            judged[name].append(judge(text, walker(Maze(text), random.Random(i))))
    assert all(j.optimal for j in judged["shortest"])
    assert all(j.valid for j in judged["straight"])
    assert 0.3 < sum(j.optimal for j in judged["straight"]) / 200 < 0.9
    assert all(j.length <= j.shortest for j in judged["blind"])
    assert 0.2 < sum(j.valid for j in judged["blind"]) / 200 < 0.8


def test_demonstrations_repeat_and_differ_by_demonstrator():
    text = draw(0, 0)
    walks = [demonstrate(0, i, text) for i in range(50)]
    assert walks == [demonstrate(0, i, text) for i in range(50)]
    assert len(set(walks)) > 1
    few = demonstrations(2, 5)
    assert demonstrations(2, 9)[:5] == few
    assert few[3] == (draw(2, 3), demonstrate(2, 3, draw(2, 3)))


def test_moves_are_the_four_neighbours():
    assert {step((2, 2), move) for move in MOVES} == {(1, 2), (3, 2), (2, 1), (2, 3)}
