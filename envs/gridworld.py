"""A described grid becomes a table.

One state for each cell that is no wall, in map order. A move aims at the neighbouring cell, slips to another
direction with the probabilities of `Grid.slip` (relative to the aim), and then

* runs into a wall or the edge: the agent stays and earns `reward["bump"]` (without one, as a step);
* or enters a cell: it earns `reward[kind]` of that cell (without one, `reward["step"]`), ends there if the kind is
  terminal, and stands at the start if the kind says `to = "start"`.

Staying enters the cell one stands on; it never slips. A terminal state keeps the agent and earns nothing. So a
move earns exactly one of the numbers, as in Zhao, Mathematical Foundations of Reinforcement Learning, sec. 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from envs.layout import LOOKS, Layout
from envs.mdp import TabularMDP
from envs.world import Optimum, World

MOVES = {  # by name: rows down, columns right
    "up": (-1, 0),
    "right": (0, 1),
    "down": (1, 0),
    "left": (0, -1),
    "up-right": (-1, 1),
    "down-right": (1, 1),
    "down-left": (1, -1),
    "up-left": (-1, -1),
    "stay": (0, 0),
}
TURNS = {  # a relative direction applied to a move (rows, columns): "left" of up is left
    "forward": ((1, 0), (0, 1)),
    "left": ((0, -1), (1, 0)),
    "right": ((0, 1), (-1, 0)),
    "back": ((-1, 0), (0, -1)),
}


@dataclass(frozen=True)
class Kind:
    """What a cell does to whoever enters it."""

    glyph: str
    like: str
    """How it looks in drawings and image planes, one of `envs.layout.LOOKS`."""
    terminal: bool = False
    """Entering it ends the episode."""
    to: str = ""
    """ "start": whoever enters is moved to the cell S; "": stays."""


KINDS = {
    "floor": Kind(".", "floor"),
    "wall": Kind("#", "wall"),
    "start": Kind("S", "start"),
    "goal": Kind("G", "goal", terminal=True),
    "forbidden": Kind("x", "forbidden"),
    "cliff": Kind("C", "forbidden", to="start"),
    "hole": Kind("H", "hole", terminal=True),
}


@dataclass(frozen=True)
class Grid:
    """A grid as described; `envs.language.read` checks what it makes."""

    map: tuple[str, ...]
    """Rows of equal length, one glyph for each cell."""
    kinds: dict[str, Kind] = field(default_factory=lambda: dict(KINDS))
    actions: tuple[str, ...] = ("up", "right", "down", "left")
    """Names of `MOVES`."""
    discount: float = 0.99
    time_limit: int | None = None
    start: str = "map"
    """"map": any S with equal chance; "uniform": any cell where an episode can go on."""
    reward: dict[str, float] = field(default_factory=dict)
    """"step", "bump" and names of kinds."""
    slip: dict[str, float] = field(default_factory=lambda: {"forward": 1.0})
    """Probabilities of `TURNS`."""
    source: str = ""
    optimum: Optimum | None = None


def build(grid: Grid, name: str) -> World:
    """The world that `grid` describes. Time and memory are linear in its cells."""
    names = list(grid.kinds)
    by_glyph = {kind.glyph: i for i, kind in enumerate(grid.kinds.values())}
    kind = np.array([[by_glyph[glyph] for glyph in row] for row in grid.map])  # [rows, cols]
    wall = kind == names.index("wall")
    state = np.where(wall, -1, np.cumsum(~wall).reshape(wall.shape) - 1)  # [rows, cols]
    cell = np.argwhere(~wall)  # [S, 2]
    own = kind[tuple(cell.T)]  # kind of each state, [S]
    terminal = np.array([k.terminal for k in grid.kinds.values()])
    jumps = np.array([k.to == "start" for k in grid.kinds.values()])
    step = grid.reward.get("step", 0.0)
    earned = np.array([grid.reward.get(k, step) for k in names])
    home = np.flatnonzero(own == names.index("start"))  # states of the cells S

    S, A, K = len(cell), len(grid.actions), len(grid.slip)
    next_state, ended = np.empty((S, A, K), np.int32), np.empty((S, A, K), np.bool_)
    prob, reward = np.empty((S, A, K)), np.empty((S, A, K))
    for a, action in enumerate(grid.actions):
        for k, (turn, chance) in enumerate(grid.slip.items()):
            target = cell + np.array(TURNS[turn]) @ np.array(MOVES[action])  # [S, 2]
            inside = ((target >= 0) & (target < kind.shape)).all(1)
            target = np.where(inside[:, None], target, cell)
            bump = ~inside | wall[tuple(target.T)]
            target = np.where(bump[:, None], cell, target)
            entered = kind[tuple(target.T)]  # [S]
            next_state[:, a, k] = state[tuple(target.T)]
            jump = jumps[entered] & ~bump
            if jump.any():
                next_state[jump, a, k] = home[0]
            ended[:, a, k] = terminal[entered]
            prob[:, a, k] = chance if action != "stay" else float(k == 0)
            reward[:, a, k] = np.where(bump, grid.reward.get("bump", step), earned[entered])
    over = terminal[own]
    next_state[over], ended[over], reward[over] = np.flatnonzero(over)[:, None, None], True, 0.0
    prob[over] = np.arange(K) == 0

    first = ~(over | jumps[own]) if grid.start == "uniform" else np.isin(np.arange(S), home)
    return World(
        name=name,
        source=grid.source,
        mdp=TabularMDP(
            next_state=torch.from_numpy(next_state),
            prob=torch.from_numpy(prob),
            reward=torch.from_numpy(reward),
            terminated=torch.from_numpy(ended),
            start=torch.from_numpy(first / first.sum()),
        ),
        discount=grid.discount,
        time_limit=grid.time_limit,
        layout=Layout(
            glyphs=grid.map,
            look=torch.from_numpy(np.array([LOOKS.index(k.like) for k in grid.kinds.values()])[kind])[None],
            cell=torch.from_numpy(cell),
            mode=torch.zeros(S, dtype=torch.int64),
        ),
        action_names=grid.actions,
        optimum=grid.optimum,
    )
