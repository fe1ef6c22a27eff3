"""Mazes as text, walks as text: a language whose every sentence can be judged exactly.

    prompt       ..#.G        completion   RRDDL   (U up, D down, L left, R right)
                 .#...
                 S..#.        `#` wall, `.` floor, `S` start, `G` goal; beyond the edge is wall too

Breadth-first search says whether a walk is valid (it never enters a wall and ends exactly at the goal) and how long
the shortest is. Everything is a pure function of a seed and an index: maze i of a seed is the same however many others
are drawn. Training and held-out mazes are disjoint by construction: a hash of the pattern of the walls alone puts one
pattern in ten on the held-out side, so none of those is ever trained on, whatever the seed, the start or the goal.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections import deque
from dataclasses import dataclass

from lab import streams

MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
ALPHABET = "\n#.SG" + "".join(MOVES)

Cell = tuple[int, int]


class MazeError(ValueError):
    """A text is no maze: ragged, with a foreign character, or without exactly one start and one goal."""


@dataclass(frozen=True)
class Judgement:
    """What a walk is worth."""

    valid: bool
    """It never enters a wall and ends exactly at the goal."""
    length: int
    """Its moves."""
    shortest: int
    """Moves of the shortest walk."""

    @property
    def optimal(self) -> bool:
        """Valid and as short as can be."""
        return self.valid and self.length == self.shortest


@dataclass(frozen=True)
class Maze:
    """A maze read from its text. Raises MazeError for a text that is none."""

    text: str

    def __post_init__(self) -> None:
        rows = self.text.splitlines()
        if not rows or len({len(row) for row in rows}) != 1:
            raise MazeError(
                f"maze {self.text!r}: its rows have lengths {[len(row) for row in rows]}; expected equal ones"
            )
        if foreign := set(self.text) - set("\n#.SG"):
            raise MazeError(f"maze {self.text!r}: holds {min(foreign)!r}; expected only # . S G")
        if self.text.count("S") != 1 or self.text.count("G") != 1:
            raise MazeError(f"maze {self.text!r}: expected exactly one S and one G")

    @property
    def start(self) -> Cell:
        """(row, column) of the S."""
        return self._find("S")

    @property
    def goal(self) -> Cell:
        """(row, column) of the G."""
        return self._find("G")

    def _find(self, mark: str) -> Cell:
        return next((r, row.index(mark)) for r, row in enumerate(self.text.splitlines()) if mark in row)

    def floor(self) -> set[Cell]:
        """The cells one can stand on."""
        rows = self.text.splitlines()
        return {(r, c) for r, row in enumerate(rows) for c, mark in enumerate(row) if mark != "#"}

    def distances(self) -> dict[Cell, int]:
        """Moves to the goal from every cell that it can be reached from, by breadth-first search."""
        floor, reached = self.floor(), {self.goal: 0}
        queue = deque(reached)
        while queue:
            cell = queue.popleft()
            for move in MOVES:
                near = step(cell, move)
                if near in floor and near not in reached:
                    reached[near] = reached[cell] + 1
                    queue.append(near)
        return reached


def step(cell: Cell, move: str) -> Cell:
    """Where a move leads, wall or not."""
    down, right = MOVES[move]
    return cell[0] + down, cell[1] + right


def judge(text: str, moves: str) -> Judgement:
    """Follow the moves through the maze. Raises MazeError for a text that is no maze, or one that cannot be solved."""
    maze = Maze(text)
    distance, cell, valid = maze.distances(), maze.start, True
    if cell not in distance:
        raise MazeError(f"maze {text!r}: the goal cannot be reached from the start")
    for move in moves:
        cell = step(cell, move) if move in MOVES else (-1, -1)
        valid = valid and cell in distance  # from a reachable start every floor cell one can walk to is reachable
    return Judgement(valid and cell == maze.goal, len(moves), distance[maze.start])


def held_out(text: str) -> bool:
    """Which side the maze is on: a tenth of all patterns of walls, by their hash, are never trained on."""
    pattern = text.replace("S", ".").replace("G", ".")
    return hashlib.blake2b(pattern.encode(), digest_size=8).digest()[0] < 26  # 26 / 256 = 10.2%


def draw(
    seed: int, index: int, *, test: bool = False, rows: int = 4, columns: int = 4, walls: float = 0.3, nearest: int = 3
) -> str:
    """Maze `index` of `seed`: each cell a wall with probability `walls`, start and goal connected and apart.

    Args:
        seed, index: which maze.
        test: from the held-out side.
        rows, columns: the size in cells.
        walls: the share of walls. Larger leaves fewer ways.
        nearest: the fewest moves from start to goal.
    """
    rng = random.Random(streams.derive(seed, "maze", "test" if test else "train", index))
    while True:
        marks = ["#" if rng.random() < walls else "." for _ in range(rows * columns)]
        start, goal = int(rng.random() * len(marks)), int(rng.random() * len(marks))
        marks[start], marks[goal] = "S", "G"
        text = "".join("".join(marks[r * columns : (r + 1) * columns]) + "\n" for r in range(rows))
        if start != goal and held_out(text) == test:
            maze = Maze(text)
            if maze.distances().get(maze.start, 0) >= nearest:
                return text


def shortest(maze: Maze, rng: random.Random) -> str:
    """A shortest walk, at each fork any of them."""
    distance, cell, moves = maze.distances(), maze.start, ""
    while cell != maze.goal:
        moves += rng.choice([move for move in MOVES if distance.get(step(cell, move), math.inf) < distance[cell]])
        cell = step(cell, moves[-1])
    return moves


def straight(maze: Maze, rng: random.Random) -> str:
    """A valid walk that goes straight until a wall stops it, then turns the best way; after four moves it hurries."""
    distance, cell, moves = maze.distances(), maze.start, ""
    while cell != maze.goal:
        open_ways = [move for move in MOVES if step(cell, move) in distance]
        if not moves or len(moves) > 4 or moves[-1] not in open_ways:
            near = min(distance[step(cell, move)] for move in open_ways)
            moves += rng.choice([move for move in open_ways if distance[step(cell, move)] == near])
        else:
            moves += moves[-1]
        cell = step(cell, moves[-1])
    return moves


def blind(maze: Maze, rng: random.Random) -> str:
    """As the crow flies: the way there would be without walls. Where a wall stands in it, it fails."""
    (row, column), (goal_row, goal_column) = maze.start, maze.goal
    moves = ["U" if goal_row < row else "D"] * abs(goal_row - row)
    moves += ["L" if goal_column < column else "R"] * abs(goal_column - column)
    order = sorted(range(len(moves)), key=lambda _: rng.random())
    return "".join(moves[i] for i in order)


WALKERS = {"shortest": (shortest, 0.5), "straight": (straight, 0.25), "blind": (blind, 0.25)}


def demonstrate(seed: int, index: int, text: str) -> str:
    """What demonstrator `index` of `seed` does in a maze: half of them walk well, a quarter long, a quarter blindly."""
    rng = random.Random(streams.derive(seed, "demonstration", index))
    walkers, shares = zip(*WALKERS.values(), strict=True)
    (walker,) = rng.choices(walkers, shares)
    return walker(Maze(text), rng)


def demonstrations(seed: int, count: int, *, test: bool = False) -> list[tuple[str, str]]:
    """`count` mazes of the default size, each with an imperfect walk: prompts and completions to learn from."""
    texts = [draw(seed, index, test=test) for index in range(count)]
    return [(text, demonstrate(seed, index, text)) for index, text in enumerate(texts)]
