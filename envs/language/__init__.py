'''The grid language: a world as a TOML file with an ASCII map.

    source = "where it comes from"
    map = """
    S.x
    .#G
    """
    actions = ["up", "right", "down", "left", "stay"]   # names of `gridworld.MOVES`; by default the first four
    discount = 0.9                                      # by default 0.99
    time_limit = 100                                    # by default "none"
    start = "uniform"                                   # by default "map": any S; "uniform": wherever one can begin
    alike = ["floor", "start"]                          # cells of these kinds all look the same

    [reward]            # a move earns exactly one number, the first given of: leave, bump or else the kind, step
    step = 0            # by default 0
    bump = -1           # running into a wall, a solid cell, a closed door or the edge
    forbidden = -1      # entering (or staying in) a cell of that kind
    goal = 1

    [leave]
    floor = -1          # acting in a cell of that kind, wherever it leads

    [start]             # in place of start = "...": weights of the kinds of cells, each shared by its cells
    floor = 1
    start = "1/2"

    [slip]              # where a move really goes, relative to its aim: numbers, or fractions as strings
    forward = "2/3"
    left = "1/3"

    [wind]              # added to every move, staying too; only where it lands counts, and the edge cuts it off
    up = [0, 1, 2]      # in cells, one number for each column that is left; negative blows down
    varies = {"-1" = "1/3", "0" = "1/3", "1" = "1/3"}   # added to the wind in columns where it is not 0

    [cell.goal]         # what differs from `grid.KINDS`, or a kind of your own
    glyph = "G"         # the character in the map
    like = "goal"       # how it looks, one of `layout.LOOKS`
    terminal = false    # entering it ends the episode; the agent stays and earns nothing more
    solid = true        # cannot be entered, but is a state: a gate that an override can open
    cue = true          # the cue of the episode is seen here; by default in kind start

    # and at most one of terminal and these; what is given puts aside what the kind did
    to = "start"        # whoever enters is carried on at once to the one cell of that kind
    exit = "start"      # every action here leads to the one cell of that kind; no slip, no wind, no bump
    turn = "back"       # moves taken here are turned: one of `gridworld.TURNS`
    key = "red"         # entering takes this key; from then on the cell is floor in every respect
    door = "red"        # a bump without a red key in hand; entering uses it up, from then on the cell is floor

    [cue.north]         # one cue is drawn at the start of each episode and lasts for it
    chance = "1/2"      # the chances of all cues sum to 1
    reward = {n = 4, s = -0.1}                          # in place of those kinds' rewards while it does

    [optimum]           # what is known of the best policy: value, values, discount, tolerance, source
    value = 1.0
    source = "page or figure"

A new kind of cell is a table `[cell.lava]` with a glyph, and earns `reward.lava`; without `like` it looks like what
it does. A move that would leave the map, or enter what cannot be entered, leaves the agent where it is; all that moves
do, and in which order, is in `envs.gridworld`. What keys, doors (at most 12 on a map) and cues make a world remember
is in its states (`envs.gridworld.memory`). Keys in hand are seen; a cue is seen only in cells that show it. In place of
a map, a maker of `envs.makers` with its parameters in a table of the same name:

    make = "maze"
    [maze]
    size = 20
    seed = 7
    count = 100         # where there is a seed: a mixture of the worlds of this and the following seeds

Makers that make the whole table go with source, discount, time_limit and optimum only. Overrides name one key by its
dotted path. Every error is one line: file, line, column, what is wrong and what was expected.
'''

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from envs.gridworld import build, entries
from envs.gridworld.grid import Grid, Kind
from envs.language import cells, locate, making, rules
from envs.language.document import Document
from envs.makers import MapMaker, TableMaker
from envs.mixture import mix
from envs.world import Optimum, World

MADE = ("source", "make", "discount", "time_limit", "optimum")  # what a world of a table maker may say
RULES = ("actions", "start", "alike", "reward", "leave", "slip", "wind", "cell", "cue")
DRAWN = ("source", "map", "make", "discount", "time_limit", *RULES, "optimum")  # ... and one with a map
LONGEST = 2**31 - 1  # steps of an episode, which the simulator counts in int32
MOST = 2**28  # entries of a table: states x actions x outcomes; 5.6 GB in all


def world(text: str, file: str, name: str, overrides: Mapping[str, Any] | None = None) -> World:
    """The world that `text` describes, after overrides, under that name.

    Args:
        text: the TOML document.
        file: its name, for messages.
        name: of the world.
        overrides: values by dotted key, `{"reward.forbidden": "-10"}`; a string is read as TOML where it can be, and
            stands for itself where it cannot.

    Raises:
        WorldError: one line with file, line and column, or with the file and the override.
    """
    doc = Document(text, file, overrides or {})
    maker = making.maker(doc)
    if not isinstance(maker, TableMaker):
        worlds = [build(grid, name) for grid in _grids(doc, maker)]
        return worlds[0] if len(worlds) == 1 else mix(worlds, name=name)
    doc.table((), doc.root, (*MADE, doc.root["make"]))
    common, made = _common(doc), making.made(doc, maker)
    _check_values(doc, common["optimum"], made.layout.glyphs)
    return World(name=name, mdp=made.mdp, layout=made.layout, action_names=made.action_names, **common)


def read(text: str, file: str, overrides: Mapping[str, Any] | None = None) -> Grid:
    """The grid that `text` describes, the first where there are several; arguments and errors as in `world`."""
    doc = Document(text, file, overrides or {})
    maker = making.maker(doc)
    if isinstance(maker, TableMaker):
        raise doc.error(("make",), f"{doc.root['make']} makes tables, expected a world with a map")
    return _grids(doc, maker)[0]


def _grids(doc: Document, maker: MapMaker | None) -> list[Grid]:
    """The whole document, for each map."""
    document = doc.root
    doc.table((), document, (*DRAWN, *([document["make"]] if maker else [])))
    kinds = cells.kinds(doc)
    draws = making.draws(doc, maker) if maker else [lambda: _written_map(doc)]
    first = Grid(
        map=_checked_map(doc, draws[0](), kinds),
        kinds=kinds,
        actions=rules.actions(doc),
        start=rules.start(doc, kinds),
        reward=rules.rewards(doc, ("reward",), document, (*cells.EARNING, *kinds)),
        leave=rules.rewards(doc, ("leave",), document, kinds),
        slip=rules.slip(doc),
        wind=rules.wind(doc),
        alike=rules.alike(doc, kinds),
        cues=rules.cues(doc, kinds),
        **_common(doc),
    )
    _check(doc, first)
    if (size := entries(first) * len(draws)) > MOST:
        message = f"the world has {size:,} states x actions x outcomes, expected at most {MOST:,}"
        raise doc.error(doc.drawn, message)
    others = [replace(first, map=_checked_map(doc, draw(), kinds)) for draw in draws[1:]]
    for grid in others:
        _check(doc, grid)
    return [first, *others]


def _check(doc: Document, grid: Grid) -> None:
    """The map has what the rest of the document speaks of."""
    cells.check(doc, grid)
    rules.check(doc, grid)
    _check_values(doc, grid.optimum, grid.map)


def _check_values(doc: Document, optimum: Optimum | None, rows: tuple[str, ...]) -> None:
    """The known values fit the map, unless that is another one by an override."""
    values = optimum.values if optimum else ()
    other = any(path[0] in ("map", "make", *doc.drawn) for path in doc.overridden)
    if values and not other and [len(row) for row in values] != [len(row) for row in rows]:
        widths = ", ".join(str(len(row)) for row in values)
        message = f"optimum.values has rows of {widths}, expected {len(rows)} x {len(rows[0])}, one for each cell"
        raise doc.error(("optimum", "values"), message)


def _written_map(doc: Document) -> tuple[str, ...]:
    """The map as it is written, its rows not yet looked at."""
    if "map" not in doc.root:
        message = 'there is no map, expected map = followed by rows of cells in triple quotes, or make = "a maker"'
        raise doc.error((), message)
    rows = tuple(doc.string(("map",), doc.root["map"]).strip("\n").split("\n"))
    if rows == ("",):
        raise doc.error(("map",), "the map is empty, expected at least one cell")
    return rows


def _checked_map(doc: Document, rows: tuple[str, ...], kinds: Mapping[str, Kind]) -> tuple[str, ...]:
    """The same rows, of equal length and of known glyphs."""
    known = {kind.glyph: name for name, kind in kinds.items()}
    for r, row in enumerate(rows):
        if unknown := set(row).difference(known):
            c = min(map(row.index, unknown))
            legend = ", ".join(f"{g} {name}" for g, name in known.items())
            message = f"glyph {row[c]!r} in row {r + 1} is unknown, expected one of {legend}"
            raise doc.error(doc.drawn, message, _place(doc, r, c))
        if len(row) != len(rows[0]):
            message = f"the map is ragged: row {r + 1} has {len(row)} cells, expected {len(rows[0])} as in row 1"
            raise doc.error(doc.drawn, message, _place(doc, r, min(len(row), len(rows[0]))))
    return rows


def _place(doc: Document, r: int, c: int) -> locate.Place | None:
    """Where the cell in row r and column c of the map is written."""
    if doc.drawn not in doc.places or doc.drawn != ("map",):
        return None
    line, column, spans = locate.string(doc.text, doc.places["map",])
    written = doc.root["map"]
    line += (len(written) - len(written.lstrip("\n"))) * spans
    return line + r * spans, (column if r == 0 or not spans else 1) + c


def _common(doc: Document) -> dict[str, Any]:
    """What every world may say."""
    document, default = doc.root, Grid(())
    discount = doc.number(("discount",), document.get("discount", default.discount), 0.0, 1.0)
    return {
        "source": doc.string(("source",), document.get("source", "")),
        "discount": discount,
        "time_limit": _time_limit(doc, document.get("time_limit", "none")),
        "optimum": _optimum(doc, document["optimum"], discount) if "optimum" in document else None,
    }


def _optimum(doc: Document, value: Any, discount: float) -> Optimum:
    """What the source prints of the best policy."""
    path = ("optimum",)
    given = doc.table(path, value, ("value", "values", "discount", "tolerance", "source"))
    if "value" not in given or "source" not in given:
        raise doc.error(path, f"optimum has only {', '.join(given) or 'nothing'}, expected value and source")
    rows = given.get("values", [])
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise doc.error((*path, "values"), f"values is {rows!r}, expected a list of rows of numbers")
    return Optimum(
        value=doc.number((*path, "value"), given["value"]),
        discount=doc.number((*path, "discount"), given.get("discount", discount), 0.0, 1.0),
        tolerance=doc.number((*path, "tolerance"), given.get("tolerance", 1e-6), 0.0),
        source=doc.string((*path, "source"), given["source"]),
        values=tuple(tuple(doc.number((*path, "values"), v) for v in row) for row in rows),
    )


def _time_limit(doc: Document, value: Any) -> int | None:
    """A positive number of steps, or "none"."""
    if value == "none":
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LONGEST:
        message = f'time_limit is {value!r}, expected a number of steps, 1 to {LONGEST}, or "none"'
        raise doc.error(("time_limit",), message)
    return value
