"""Reading what holds on the whole map: rewards, slip, wind, where episodes begin, what looks alike, cues."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from envs.gridworld import MOVES, TURNS
from envs.gridworld.grid import WALL, Cue, Grid, Kind, Wind
from envs.language.document import Document, Path

STRONGEST = 1_000_000  # wind, in cells
HEAVIEST = 1e9  # weight of a kind of cell


def actions(doc: Document) -> tuple[str, ...]:
    """Names of moves, each once. Raises WorldError, as all of these do."""
    value = doc.root.get("actions", list(Grid(()).actions))
    if not isinstance(value, list) or not value:
        raise doc.error(("actions",), f"actions is {value!r}, expected a list of moves: {', '.join(MOVES)}")
    names = tuple(doc.word(("actions",), name, MOVES) for name in value)
    if len(set(names)) < len(names):
        raise doc.error(("actions",), f"actions is {value!r}, expected each move once")
    return names


def rewards(doc: Document, path: Path, table: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """Numbers by name, at `path` of the document, where `table` holds them."""
    given = doc.table(path, table.get(path[-1], {}), [name for name in names if name != WALL])
    return {name: doc.number((*path, name), value) for name, value in given.items()}


def slip(doc: Document) -> dict[str, float]:
    """Probabilities of relative directions."""
    return doc.chances(("slip",), doc.root["slip"], TURNS) if "slip" in doc.root else {"forward": 1.0}


def wind(doc: Document) -> Wind | None:
    """The wind of each column."""
    if "wind" not in doc.root:
        return None
    given = doc.table(("wind",), doc.root["wind"], ("up", "varies"))
    up = given.get("up")
    if not isinstance(up, list):
        message = "wind has no up" if up is None else f"wind.up is {up!r}"
        raise doc.error(("wind", "up"), f"{message}, expected a list of whole numbers, one for each column of the map")
    cells = tuple(doc.whole(("wind", "up"), number, -STRONGEST, STRONGEST) for number in up)
    varies: dict[int, float] = {}
    for number, chance in doc.chances(("wind", "varies"), given.get("varies", {"0": 1})).items():
        if not re.fullmatch(r"[+-]?[0-9]{1,6}", number):
            raise doc.error(("wind", "varies", number), f"wind.varies has {number!r}, expected whole numbers of cells")
        varies[int(number)] = varies.get(int(number), 0.0) + chance
    return Wind(cells, varies)


def start(doc: Document, kinds: Mapping[str, Kind]) -> str | dict[str, float]:
    """Where episodes begin: "map", "uniform", or weights by kind."""
    value = doc.root.get("start", "map")
    if not isinstance(value, dict):
        return doc.word(("start",), value, ("map", "uniform"))
    given = doc.table(("start",), value, [name for name in kinds if name != WALL])
    weights = {name: doc.number(("start", name), weight, 0.0, HEAVIEST) for name, weight in given.items()}
    if not any(weights.values()):
        raise doc.error(("start",), "start sums to 0, expected at least one weight above 0")
    return weights


def alike(doc: Document, kinds: Mapping[str, Kind]) -> tuple[str, ...]:
    """Kinds whose cells look the same."""
    value = doc.root.get("alike", [])
    if not isinstance(value, list):
        raise doc.error(("alike",), f"alike is {value!r}, expected a list of kinds of cells")
    return tuple(doc.word(("alike",), name, [name for name in kinds if name != WALL]) for name in value)


def cues(doc: Document, kinds: Mapping[str, Kind]) -> dict[str, Cue]:
    """The cues and what they change."""
    found = {}
    for name, value in doc.table(("cue",), doc.root.get("cue", {})).items():
        path = ("cue", name)
        given = doc.table(path, value, ("chance", "reward"))
        if "chance" not in given:
            raise doc.error(path, f"cue {name!r} has no chance, expected chance = a probability")
        chance = doc.number((*path, "chance"), given["chance"], 0.0, 1.0)
        found[name] = Cue(chance, rewards(doc, (*path, "reward"), given, kinds))
    total = sum(cue.chance for cue in found.values())
    if found and abs(total - 1) > 1e-9:
        raise doc.error(("cue",), f"the chances of the cues sum to {total:.9g}, expected 1")
    return found


def check(doc: Document, grid: Grid) -> None:
    """The wind fits the map, and an episode can begin on it."""
    if grid.wind is not None and len(grid.wind.up) != len(grid.map[0]):
        message = (
            f"wind.up has {len(grid.wind.up)} numbers, expected {len(grid.map[0])}, one for each column of the map"
        )
        raise doc.error(("wind", "up"), message)
    begins = [name for name, kind in grid.kinds.items() if kind.begins]
    if grid.start == "uniform":
        if not any(grid.cells(name) for name in begins):
            message = "the map has no cell where an episode could begin, expected one that is no end"
            raise doc.error(doc.drawn, message)
        return
    if grid.start == "map" and not grid.cells("start"):
        glyph = grid.kinds["start"].glyph
        raise doc.error(doc.drawn, f'the map has no start, expected at least one {glyph} or start = "uniform"')
    for name, weight in {"start": 1.0}.items() if isinstance(grid.start, str) else grid.start.items():
        if weight and name not in begins:
            kind = grid.kinds[name]
            why = next(key for key in ("terminal", "solid", "to", "key", "door") if getattr(kind, key))
            message = f"an episode cannot begin in {name} ({why}), expected one of {', '.join(begins)}"
            raise doc.error(("cell", name, why) if isinstance(grid.start, str) else ("start", name), message)
        if weight and not grid.cells(name):
            message = f"start.{name} is {weight:g} and the map has no {name}, expected a kind that is on the map"
            raise doc.error(("start", name), message)
