"""What a grid means, told the slow way: one agent, one cell, one move at a time, in plain Python.

Nothing is shared with `envs.gridworld`: compass points instead of vectors, strings instead of tables.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

COMPASS = ["up", "right", "down", "left"]  # clockwise
TURN = {"forward": 0, "right": 1, "back": 2, "left": 3}
NAME = {".": "floor", "S": "start", "G": "goal", "x": "forbidden", "C": "cliff", "H": "hole"}

Cell = tuple[int, int]


def outcomes(
    rows: list[str], cell: Cell, action: str, slip: dict[str, float], reward: dict[str, float], ends: str
) -> dict[tuple[Cell, float, bool], float]:
    """Probability of each (cell, reward, ended) after `action` in `cell`; `ends` are the glyphs that end an episode."""
    r, c = cell
    step = reward.get("step", 0.0)
    if rows[r][c] in ends:
        return {(cell, 0.0, True): 1.0}
    chances: dict[tuple[Cell, float, bool], float] = defaultdict(float)
    for turn, chance in slip.items():
        if action == "stay":
            went = action
        else:
            went = COMPASS[(COMPASS.index(action) + TURN[turn]) % 4]
        to = {"up": (r - 1, c), "down": (r + 1, c), "left": (r, c - 1), "right": (r, c + 1), "stay": (r, c)}[went]
        if not (0 <= to[0] < len(rows) and 0 <= to[1] < len(rows[0])) or rows[to[0]][to[1]] == "#":
            chances[cell, reward.get("bump", step), False] += chance
            continue
        glyph = rows[to[0]][to[1]]
        earned = reward.get(NAME[glyph], step)
        if glyph == "C":
            home = [(i, row.index("S")) for i, row in enumerate(rows) if "S" in row]
            chances[home[0], earned, False] += chance
        else:
            chances[to, earned, glyph in ends] += chance
    return dict(chances)


def optimal_values(
    next_state: np.ndarray, prob: np.ndarray, reward: np.ndarray, terminated: np.ndarray, discount: float
) -> np.ndarray:
    """V* [S] by value iteration until nothing moves by 1e-13, then checked by the linear solve of its greedy policy.

    Of actions that are equally good the one that sooner comes to an end: the other might wait for ever.
    """
    S = len(next_state)
    goes_on = discount * ~terminated
    values = np.zeros(S)
    for _ in range(100_000):
        q = (prob * (reward + goes_on * values[next_state])).sum(-1)  # [S, A]
        values, before = q.max(1), values
        if np.abs(values - before).max() < 1e-13:
            break
    best, soon = q >= values[:, None] - 1e-9, np.zeros(S)
    for _ in range(2 * S if discount == 1 else 1):
        sooner = np.where(best, (prob * np.where(terminated, 1.0, 0.99 * soon[next_state])).sum(-1), -1.0)  # [S, A]
        soon = sooner.max(1)
    greedy = sooner.argmax(1)
    P = np.zeros((S, S))
    for s in range(S):
        np.add.at(P[s], next_state[s, greedy[s]], prob[s, greedy[s]] * goes_on[s, greedy[s]])
    r = (prob * reward).sum(-1)[np.arange(S), greedy]
    solved = np.linalg.solve(np.eye(S) - P, r)
    np.testing.assert_allclose(values, solved, atol=1e-9)
    return solved
