"""The grid language, told the slow way: one agent, one move at a time, in plain Python and straight from the TOML.

Nothing is shared with `envs`: compass points instead of vectors, sets of cells instead of numbered modes.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from fractions import Fraction
from typing import Any, NamedTuple

ROSE = ["up", "up-right", "right", "down-right", "down", "down-left", "left", "up-left"]  # clockwise
EIGHTHS = {"forward": 0, "right": 2, "back": 4, "left": 6}
COMMON = {
    "floor": {"glyph": "."},
    "wall": {"glyph": "#"},
    "start": {"glyph": "S", "cue": True},
    "goal": {"glyph": "G", "terminal": True},
    "forbidden": {"glyph": "x"},
    "cliff": {"glyph": "C", "to": "start"},
    "hole": {"glyph": "H", "terminal": True},
}

Cell = tuple[int, int]


class Agent(NamedTuple):
    """Where an agent is and what it has done."""

    cell: Cell
    taken: frozenset[Cell]
    opened: frozenset[Cell]
    cue: str


class Grid:
    """A world as a person reads it."""

    def __init__(self, text: str) -> None:
        self.doc: dict[str, Any] = tomllib.loads(text)
        self.kinds = {name: dict(kind) for name, kind in COMMON.items()}
        for name, kind in self.doc.get("cell", {}).items():
            self.kinds[name] = self.kinds.get(name, {}) | kind
        name_of = {kind["glyph"]: name for name, kind in self.kinds.items()}
        self.rows = [[name_of[glyph] for glyph in row] for row in self.doc["map"].strip("\n").split("\n")]
        self.cells = {(r, c): name for r, row in enumerate(self.rows) for c, name in enumerate(row) if name != "wall"}

    def the(self, kind: str) -> Cell:
        (cell,) = [cell for cell, name in self.cells.items() if name == kind]
        return cell

    def kind(self, agent: Agent, cell: Cell) -> str:
        return "floor" if cell in agent.taken | agent.opened else self.cells[cell]

    def hand(self, agent: Agent, colour: str) -> int:
        keys = [cell for cell in agent.taken if self.kinds[self.cells[cell]]["key"] == colour]
        return len(keys) - len([cell for cell in agent.opened if self.kinds[self.cells[cell]]["door"] == colour])

    def starts(self) -> dict[Agent, float]:
        """The probability of each beginning."""
        chances: dict[Agent, float] = defaultdict(float)
        start = self.doc.get("start", "map")
        cues = {name: float(Fraction(cue["chance"])) for name, cue in self.doc.get("cue", {}).items()} or {"": 1.0}
        if start == "uniform":
            never = ("terminal", "solid", "to", "key", "door")
            able = [cell for cell, name in self.cells.items() if not any(self.kinds[name].get(key) for key in never)]
            where = {cell: 1 / len(able) for cell in able}
        else:
            weights = {"start": 1} if start == "map" else start
            own = {kind: [cell for cell, name in self.cells.items() if name == kind] for kind in weights}
            where = {c: weights[kind] / sum(weights.values()) / len(own[kind]) for kind in weights for c in own[kind]}
        for cell, chance in where.items():
            for cue, likely in cues.items():
                chances[Agent(cell, frozenset(), frozenset(), cue)] += chance * likely
        return chances

    def sees(self, agent: Agent) -> tuple[Any, ...]:
        """All that can be told apart of where the agent is."""
        kind = self.kind(agent, agent.cell)
        cue = agent.cue if agent.cue and self.kinds[kind].get("cue") else None
        return (None if kind in self.doc.get("alike", []) else agent.cell, agent.taken, agent.opened, cue)

    def outcomes(self, agent: Agent, action: str) -> dict[tuple[Agent, float, bool], float]:
        """The probability of each (agent, reward, ended) after one action."""
        here = self.kinds[self.kind(agent, agent.cell)]
        if here.get("terminal"):
            return {(agent, 0.0, True): 1.0}
        if here.get("exit"):
            return {self.enter(agent, self.the(here["exit"])): 1.0}
        chances: dict[tuple[Agent, float, bool], float] = defaultdict(float)
        up = self.doc["wind"]["up"][agent.cell[1]] if "wind" in self.doc else 0
        gusts = self.doc.get("wind", {}).get("varies", {"0": 1})
        slips = self.doc.get("slip", {"forward": 1}) if action != "stay" else {"forward": 1}
        for turn, chance in slips.items():
            for gust, likely in gusts.items():
                r, c = agent.cell
                if action != "stay":
                    turned = EIGHTHS[turn] + EIGHTHS[here.get("turn", "forward")]
                    towards = ROSE[(ROSE.index(action) + turned) % 8]
                    r += ("down" in towards) - ("up" in towards)
                    c += ("right" in towards) - ("left" in towards)
                r -= up + int(gust) if up else 0
                chances[self.aim(agent, (r, c))] += float(Fraction(chance)) * float(Fraction(likely))
        return dict(chances)

    def aim(self, agent: Agent, cell: Cell) -> tuple[Agent, float, bool]:
        """Going to a cell, which may be anywhere."""
        r, c = cell
        if "wind" in self.doc:
            r, c = sorted((0, r, len(self.rows) - 1))[1], sorted((0, c, len(self.rows[0]) - 1))[1]
        cut = (r, c) != cell
        if (r, c) not in self.cells or (cut and (r, c) == agent.cell):
            return self.bump(agent)
        kind = self.kinds[self.kind(agent, (r, c))]
        if kind.get("solid") or (kind.get("door") and not self.hand(agent, kind["door"])):
            return self.bump(agent)
        return self.enter(agent, (r, c))

    def bump(self, agent: Agent) -> tuple[Agent, float, bool]:
        return agent, self.earns(agent, "bump"), False

    def enter(self, agent: Agent, cell: Cell) -> tuple[Agent, float, bool]:
        """Standing on a cell that lets one in."""
        reward = self.earns(agent, self.kind(agent, cell))
        while self.kinds[self.kind(agent, cell)].get("to"):
            cell = self.the(self.kinds[self.kind(agent, cell)]["to"])
        kind = self.kinds[self.kind(agent, cell)]
        agent = agent._replace(cell=cell)
        if kind.get("key"):
            agent = agent._replace(taken=agent.taken | {cell})
        if kind.get("door"):
            agent = agent._replace(opened=agent.opened | {cell})
        return agent, reward, bool(kind.get("terminal"))

    def earns(self, agent: Agent, event: str) -> float:
        """The first number that is given; `event` is a kind entered or "bump"."""
        left = self.kind(agent, agent.cell)
        cue = self.doc.get("cue", {}).get(agent.cue, {}).get("reward", {})
        for table, name in (self.doc.get("leave", {}), left), (cue, event), (self.doc.get("reward", {}), event):
            if name in table:
                return float(table[name])
        return float(self.doc.get("reward", {}).get("step", 0))
