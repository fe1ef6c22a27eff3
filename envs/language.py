'''The grid language: a world as a TOML file with an ASCII map.

    source = "where it comes from"
    map = """
    S.x
    .#G
    """
    actions = ["up", "right", "down", "left", "stay"]   # names of `gridworld.MOVES`; by default the first four
    discount = 0.9                                      # by default 0.99
    time_limit = 100                                    # by default "none"
    start = "uniform"                                   # in place of S: any cell where an episode can go on

    [reward]            # a move earns one of these; each is 0 by default, but bump and the kinds are as step
    step = 0
    bump = -1           # running into a wall or the edge
    forbidden = -1      # entering (or staying in) a cell of that kind
    goal = 1

    [slip]              # where a move really goes, relative to its aim: numbers, or fractions as strings
    forward = "2/3"
    left = "1/3"

    [cell.goal]         # what differs from `gridworld.KINDS`: glyph, like, terminal, to
    terminal = false

    [optimum]           # what is known of the best policy: value, values, discount, tolerance, source
    value = 1.0
    source = "page or figure"

A new kind of cell is a table of its own, `[cell.lava]` with a glyph, and earns `reward.lava`. Overrides name one key
by its dotted path. Every error is one line: file, line, column, what is wrong and what was expected.
'''

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from envs import locate
from envs.document import Document, near
from envs.gridworld import KINDS, MOVES, TURNS, Grid, Kind
from envs.layout import LOOKS
from envs.world import Optimum

KEYS = ("source", "map", "actions", "discount", "time_limit", "start", "reward", "slip", "cell", "optimum")


def read(text: str, file: str, overrides: Mapping[str, Any] | None = None) -> Grid:
    """The grid that `text` describes, after overrides.

    Args:
        text: the TOML document.
        file: its name, for messages.
        overrides: values by dotted key, `{"reward.forbidden": "-10"}`; a string is read as TOML where it can be, and
            stands for itself where it cannot.

    Raises:
        WorldError: one line with file, line and column, or with the file and the override.
    """
    return _Reader(Document(text, file, overrides or {})).grid()


class _Reader:
    """Each method checks one part of the document."""

    def __init__(self, doc: Document) -> None:
        self.doc = doc

    def grid(self) -> Grid:
        """The whole document."""
        document = self.doc.root
        self.doc.table((), document, KEYS)
        kinds = self.kinds(self.doc.table(("cell",), document.get("cell", {})))
        default = Grid(map=())
        discount = self.doc.number(("discount",), document.get("discount", default.discount), 0.0, 1.0)
        reward = self.doc.table(
            ("reward",), document.get("reward", {}), ["step", "bump", *(k for k in kinds if k != "wall")]
        )
        grid = Grid(
            map=self.map(document, kinds),
            kinds=kinds,
            actions=self.actions(document.get("actions", list(default.actions))),
            discount=discount,
            time_limit=self.time_limit(document.get("time_limit", "none")),
            start=self.doc.word(("start",), document.get("start", default.start), ("map", "uniform")),
            reward={name: self.doc.number(("reward", name), value) for name, value in reward.items()},
            slip=self.slip(document["slip"]) if "slip" in document else default.slip,
            source=self.doc.string(("source",), document.get("source", "")),
            optimum=self.optimum(document["optimum"], discount) if "optimum" in document else None,
        )
        self.check_start(grid)
        return grid

    def map(self, document: dict[str, Any], kinds: dict[str, Kind]) -> tuple[str, ...]:
        """Rows of equal length, of known glyphs."""
        if "map" not in document:
            raise self.doc.error((), "there is no map, expected map = followed by rows of cells in triple quotes")
        written = self.doc.string(("map",), document["map"])
        rows = written.strip("\n").split("\n")
        if rows == [""]:
            raise self.doc.error(("map",), "the map is empty, expected at least one cell")
        line, column, spans = locate.string(self.doc.text, self.doc.places.get(("map",), (1, 1)))
        line += (len(written) - len(written.lstrip("\n"))) * spans
        known = {kind.glyph: name for name, kind in kinds.items()}
        for r, row in enumerate(rows):
            start = column if r == 0 or not spans else 1  # where the row's first cell stands
            for c, glyph in enumerate(row):
                if glyph not in known:
                    legend = ", ".join(f"{g} {name}" for g, name in known.items())
                    at = (line + r * spans, start + c)
                    raise self.doc.error(
                        ("map",), f"glyph {glyph!r} in row {r + 1} is unknown, expected one of {legend}", at
                    )
            if len(row) != len(rows[0]):
                at = (line + r * spans, start + min(len(row), len(rows[0])))
                message = f"the map is ragged: row {r + 1} has {len(row)} cells, expected {len(rows[0])} as in row 1"
                raise self.doc.error(("map",), message, at)
        return tuple(rows)

    def check_start(self, grid: Grid) -> None:
        """An episode must be able to begin, and a cell that sends to the start must know where that is."""
        cells = "".join(grid.map)
        starts = cells.count(grid.kinds["start"].glyph)
        usable = [k.glyph for name, k in grid.kinds.items() if name != "wall" and not k.terminal and not k.to]
        if grid.start == "map" and starts == 0:
            glyph = grid.kinds["start"].glyph
            raise self.doc.error(("map",), f'the map has no start, expected at least one {glyph} or start = "uniform"')
        if grid.start == "uniform" and not any(glyph in cells for glyph in usable):
            raise self.doc.error(
                ("map",), "the map has no cell where an episode could begin, expected one that is no end"
            )
        for name, kind in grid.kinds.items():
            if kind.to and kind.glyph in cells and starts != 1:
                message = f"{name} sends the agent to the start and the map has {starts}, expected exactly one"
                raise self.doc.error(("cell", name) if ("cell", name) in self.doc.places else ("map",), message)

    def kinds(self, cell: dict[str, Any]) -> dict[str, Kind]:
        """The kinds of cells of this world: the common ones, changed, and its own."""
        kinds = dict(KINDS)
        for name, value in cell.items():
            path = ("cell", name)
            given = self.doc.table(path, value, ("glyph", "like", "terminal", "to"))
            if name not in kinds and "glyph" not in given:
                hint = near(name, kinds)
                raise self.doc.error(path, f'cell kind {name!r} is new and has no glyph, expected glyph = "?"{hint}')
            kind = kinds.get(name, Kind("", "forbidden"))
            if "glyph" in given:
                glyph = self.doc.string((*path, "glyph"), given["glyph"])
                taken = [other for other, k in kinds.items() if k.glyph == glyph and other != name]
                if len(glyph) != 1 or glyph.isspace() or taken:
                    why = f", which is already {taken[0]}" if taken else ""
                    raise self.doc.error((*path, "glyph"), f"glyph is {glyph!r}{why}, expected one free character")
                kind = replace(kind, glyph=glyph)
            if "like" in given:
                kind = replace(kind, like=self.doc.word((*path, "like"), given["like"], LOOKS))
            if "terminal" in given:
                if not isinstance(given["terminal"], bool):
                    raise self.doc.error(
                        (*path, "terminal"), f"terminal is {given['terminal']!r}, expected true or false"
                    )
                kind = replace(kind, terminal=given["terminal"])
            if "to" in given:
                kind = replace(kind, to=self.doc.word((*path, "to"), given["to"], ("start", "")))
            kinds[name] = kind
        return kinds

    def actions(self, value: Any) -> tuple[str, ...]:
        """Names of moves, each once."""
        if not isinstance(value, list) or not value:
            raise self.doc.error(("actions",), f"actions is {value!r}, expected a list of moves: {', '.join(MOVES)}")
        names = tuple(self.doc.word(("actions",), name, tuple(MOVES)) for name in value)
        if len(set(names)) < len(names):
            raise self.doc.error(("actions",), f"actions is {value!r}, expected each move once")
        return names

    def slip(self, value: Any) -> dict[str, float]:
        """Probabilities of relative directions that sum to 1."""
        chances = {
            turn: self.doc.number(("slip", turn), chance, 0.0, 1.0)
            for turn, chance in self.doc.table(("slip",), value, TURNS).items()
        }
        if abs(sum(chances.values()) - 1) > 1e-9:
            raise self.doc.error(("slip",), f"slip sums to {sum(chances.values()):.9g}, expected 1")
        return {turn: chance for turn, chance in chances.items() if chance}

    def optimum(self, value: Any, discount: float) -> Optimum:
        """What the source prints of the best policy."""
        path = ("optimum",)
        given = self.doc.table(path, value, ("value", "values", "discount", "tolerance", "source"))
        if "value" not in given or "source" not in given:
            raise self.doc.error(path, f"optimum has only {', '.join(given) or 'nothing'}, expected value and source")
        rows = given.get("values", [])
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise self.doc.error((*path, "values"), f"values is {rows!r}, expected a list of rows of numbers")
        return Optimum(
            value=self.doc.number((*path, "value"), given["value"]),
            discount=self.doc.number((*path, "discount"), given.get("discount", discount), 0.0, 1.0),
            tolerance=self.doc.number((*path, "tolerance"), given.get("tolerance", 1e-6), 0.0),
            source=self.doc.string((*path, "source"), given["source"]),
            values=tuple(tuple(self.doc.number((*path, "values"), v) for v in row) for row in rows),
        )

    def time_limit(self, value: Any) -> int | None:
        """A positive number of steps, or "none"."""
        if value == "none":
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.doc.error(("time_limit",), f'time_limit is {value!r}, expected a number of steps or "none"')
        return value
