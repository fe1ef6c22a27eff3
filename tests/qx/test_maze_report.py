"""A walk is drawn as far as it goes: to the first wall, or the edge of the map, or a word that is no move."""

from __future__ import annotations

import pytest

from qx.maze_report import _path

MAZE = "S..#\n.#..\n...G\n"


@pytest.mark.parametrize(
    ("moves", "end", "hit", "cells"),
    [
        ("DDRRR", (2, 3), None, 6),
        ("RRR", (0, 2.5), (0, 2.5), 4),
        ("DRR", (1, 0.5), (1, 0.5), 3),
        ("UUU", (-0.5, 0), (-0.5, 0), 2),
        ("DD.RR", (2, 0), None, 3),
        ("", (0, 0), None, 1),
    ],
)
def test_a_walk_ends_where_it_can_go_no_farther(
    moves: str, end: tuple[float, float], hit: tuple[float, float] | None, cells: int
) -> None:
    points, found = _path(MAZE, moves)
    assert (points[-1], found, len(points)) == (end, hit, cells)
