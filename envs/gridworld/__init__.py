"""A described grid becomes a table.

One state for each cell that is no wall, in map order, and for each mode (`envs.gridworld.memory`). A move aims at the
neighbouring cell, is turned by the cell one stands on, slips with the probabilities of `Grid.slip` (relative to the
aim) and is blown by the wind of the column one leaves; only where it lands counts. Then the agent

* runs into a wall, a solid cell, a door without its key, or the edge: it stays (a *bump*). In a world with wind
  the edge cuts a move off, coordinate by coordinate, and only a move of which nothing is left is a bump;
* or enters a cell, is carried on if the kind says `to`, takes the key or opens the door, and ends there if the kind
  is terminal.

A kind with `exit` leads to its cell whatever is done. Staying enters the cell one stands on; it never slips, but is
blown. A terminal state keeps the agent and earns nothing. Any other move earns exactly one number, the first that is
given of `leave[kind left]`, `reward["bump"]` if it bumped, else `reward[kind entered]` (the cue's before the grid's),
and `reward["step"]`: as in Zhao, Mathematical Foundations of Reinforcement Learning, sec. 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64

from envs.gridworld import sight
from envs.gridworld.grid import Grid
from envs.gridworld.ground import Ground
from envs.gridworld.memory import Memory
from envs.mdp import TabularMDP
from envs.world import World

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


class Outcome(NamedTuple):
    """One of the K ways in which a move may go."""

    turn: str
    """One of `TURNS`."""
    gust: int
    """What is added to the wind where it blows."""
    chance: float
    staying: float
    """Its chance when the move is to stay, which never slips."""


def entries(grid: Grid) -> int:
    """S A K, the size of each of the world's tables."""
    ground = Ground.of(grid)
    return len(ground.own) * Memory.of(grid, ground).modes * len(grid.actions) * len(_outcomes(grid))


def build(grid: Grid, name: str) -> World:
    """The world that `grid` describes. Time and memory are linear in its cells, modes, actions and outcomes."""
    ground = Ground.of(grid)
    memory = Memory.of(grid, ground)
    return World(
        name=name,
        source=grid.source,
        mdp=_dynamics(grid, ground, memory),
        discount=grid.discount,
        time_limit=grid.time_limit,
        layout=sight.layout(grid, ground, memory),
        action_names=grid.actions,
        optimum=grid.optimum,
    )


def _outcomes(grid: Grid) -> list[Outcome]:
    """Every slip with every gust of the wind."""
    gusts = grid.wind.varies if grid.wind else {0: 1.0}
    return [
        Outcome(turn, gust, chance * likely, likely if i == 0 else 0.0)
        for i, (turn, chance) in enumerate(grid.slip.items())
        for gust, likely in gusts.items()
    ]


def _dynamics(grid: Grid, ground: Ground, memory: Memory) -> TabularMDP:
    """The tables, memory by memory."""
    kinds, step = list(grid.kinds.values()), grid.reward.get("step", 0.0)
    cell_of = {"": -1} | {name: ground.only(i) for i, name in enumerate(grid.kinds)}
    to = np.array([cell_of[kind.to] for kind in kinds], np.int32)
    leads = np.array([cell_of[kind.exit] for kind in kinds], np.int32)
    terminal = np.array([kind.terminal for kind in kinds])
    solid = np.array([kind.solid for kind in kinds])
    leave = np.array([grid.leave.get(name, np.nan) for name in grid.kinds])
    cues = [cue.reward for cue in grid.cues.values()] or [{}]
    gain = np.array([[cue.get(name, grid.reward.get(name, step)) for name in grid.kinds] for cue in cues])
    outcomes = _outcomes(grid)
    W, Q, C, A, K = len(memory.used), memory.cues, len(ground.own), len(grid.actions), len(outcomes)
    next_state, ended = np.empty((W, Q, C, A, K), np.int32), np.empty((W, Q, C, A, K), np.bool_)
    prob, reward = np.empty((W, Q, C, A, K)), np.empty((W, Q, C, A, K))
    for a, action in enumerate(grid.actions):
        prob[..., a, :] = [o.staying if action == "stay" else o.chance for o in outcomes]
    cell, cue = np.arange(C, dtype=np.int32), np.arange(Q, dtype=np.int32)[:, None]
    for w in range(W):
        here = memory.kinds(w)
        closed = solid[here]
        closed[memory.shut(w)] = True
        after = np.full(C, w, np.int32)
        after[memory.spot] = memory.after(w)
        lands = np.where(to[here] >= 0, to[here], cell)  # where one stands after entering a cell
        arrival = (after[lands] * Q) * C + lands  # its state, with the first cue
        over, out = terminal[here], leads[here] >= 0
        paid = leave[here]
        for a, action in enumerate(grid.actions):
            for k, outcome in enumerate(outcomes):
                target = _aim(grid, ground, here, action, outcome)
                target = np.where(out, leads[here], target) if out.any() else target
                bump = (target < 0) | closed[target]
                target[bump] = cell[bump]
                next_state[w, :, :, a, k] = np.where(bump, w * Q * C + cell, arrival[target]) + cue * C
                ended[w, :, :, a, k] = terminal[here[lands[target]]] & ~bump
                earned = np.where(bump, grid.reward.get("bump", step), gain[:, here[target]])  # [Q, C]
                reward[w, :, :, a, k] = np.where(np.isnan(paid), earned, paid)
        if over.any():
            own = (w * Q + cue) * C + np.flatnonzero(over).astype(np.int32)  # [Q, cells]
            next_state[w][:, over], ended[w][:, over], reward[w][:, over] = own[..., None, None], True, 0.0
        prob[w][:, over | out] = np.arange(K) == 0
    return TabularMDP(
        next_state=torch.from_numpy(next_state.reshape(-1, A, K)),
        prob=torch.from_numpy(prob.reshape(-1, A, K)),
        reward=torch.from_numpy(reward.reshape(-1, A, K)),
        terminated=torch.from_numpy(ended.reshape(-1, A, K)),
        start=torch.from_numpy(_start(grid, ground, memory)),
    )


def _aim(
    grid: Grid, ground: Ground, here: Int64[np.ndarray, "C"], action: str, outcome: Outcome
) -> Int[np.ndarray, "C"]:
    """The cell at which each cell's move lands; -1 in walls and where the edge leaves nothing of it."""
    turns = {name: np.array(TURNS[name]) @ np.array(TURNS[outcome.turn]) @ np.array(MOVES[action]) for name in TURNS}
    kinds = np.array([turns[kind.turn] for kind in grid.kinds.values()], np.int32)  # [kinds, 2]
    down, right = (axis[here] if len(set(axis)) > 1 else axis[0] for axis in kinds.T)
    if grid.wind is not None:
        up = np.array(grid.wind.up, np.int32)
        down = down - np.where(up == 0, 0, up + outcome.gust)[ground.col]
    rows, cols = ground.kind.shape
    row, col = ground.row + down, ground.col + right
    inside_row, inside_col = np.clip(row, 0, rows - 1), np.clip(col, 0, cols - 1)
    held = (row != inside_row) | (col != inside_col)
    if grid.wind is not None:
        held &= (inside_row == ground.row) & (inside_col == ground.col)
    target = ground.number[inside_row, inside_col]
    target[held] = -1
    return target


def _start(grid: Grid, ground: Ground, memory: Memory) -> Float64[np.ndarray, "S"]:
    """Where episodes begin: in memory 0, with every cue as likely as it says."""
    if grid.start == "uniform":
        first = np.array([float(kind.begins) for kind in grid.kinds.values()])[ground.own]
    else:
        weights = {"start": 1.0} if isinstance(grid.start, str) else grid.start
        total = sum(weights.values())
        share = np.array([weights.get(name, 0.0) / total / max(1, grid.cells(name)) for name in grid.kinds])
        first = share[ground.own]
    chance = np.array([cue.chance for cue in grid.cues.values()] or [1.0])
    start = np.zeros((len(memory.used), memory.cues, len(ground.own)))
    start[0] = chance[:, None] * (first / first.sum())
    return start.ravel() / start.sum()
