"""Reading `[cell.*]`: what each kind of cell is, and whether the map has what it speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from envs.gridworld import TURNS
from envs.gridworld.grid import KINDS, WALL, Grid, Kind
from envs.gridworld.memory import MOST
from envs.language.document import Document, Path, near
from envs.layout import LOOKS

KEYS = tuple(field.name for field in fields(Kind))
EARNING = ("step", "bump")  # what `[reward]` has beside the kinds, so no kind can be called so
ONE_OF = ("terminal", "to", "exit", "turn", "key", "door")  # what a kind does; two of them would be one too many
LIKE = {
    "key": "key",
    "door": "door",
    "to": "portal",
    "exit": "portal",
    "solid": "wall",
}  # how a new kind looks by itself
NOTHING = Kind("", "")


def kinds(doc: Document) -> dict[str, Kind]:
    """The kinds of cells of this world: the common ones, changed, and its own. Raises WorldError."""
    cell = doc.table(("cell",), doc.root.get("cell", {}))
    known = dict(KINDS)
    for name, value in cell.items():
        if name in EARNING:
            message = f"cell kind {name!r} has a name that means something else in [reward], expected another"
            raise doc.error(("cell", name), message)
        known[name] = _kind(doc, name, value, known)
    names = ["", *(name for name in known if name != WALL)]
    for name, kind in known.items():
        for what in ("to", "exit"):
            doc.word(("cell", name, what), getattr(kind, what), names)
        colours = {other.key for other in known.values() if other.key}
        if kind.door and kind.door not in colours:
            listed = (
                f"one of {', '.join(map(repr, colours))}{near(kind.door, colours)}" if colours else "a kind with one"
            )
            message = f"cell.{name}.door is {kind.door!r} and no kind is a key of that colour, expected {listed}"
            raise doc.error(("cell", name, "door"), message)
    return known


def _kind(doc: Document, name: str, value: Any, known: Mapping[str, Kind]) -> Kind:
    """One kind, from its table and from what it was."""
    path = ("cell", name)
    given = doc.table(path, value, ("glyph", "like") if name == WALL else KEYS)
    if name not in known and "glyph" not in given:
        hint = near(name, known)
        raise doc.error(path, f'cell kind {name!r} is new and has no glyph, expected glyph = "?"{hint}')
    read: dict[str, Any] = {key: _value(doc, (*path, key), key, value) for key, value in given.items()}
    if "glyph" in read:
        glyph = read["glyph"]
        taken = [other for other, kind in known.items() if kind.glyph == glyph and other != name]
        if len(glyph) != 1 or glyph.isspace() or taken:
            why = f", which is already {taken[0]}" if taken else ""
            raise doc.error((*path, "glyph"), f"cell.{name}.glyph is {glyph!r}{why}, expected one free character")
    does = [key for key in ONE_OF if read.get(key, getattr(NOTHING, key)) != getattr(NOTHING, key)]
    if len(does) > 1:
        message = f"cell.{name} has {' and '.join(does)}, expected at most one of {', '.join(ONE_OF)}"
        raise doc.error((*path, does[1]), message)
    if does:  # what is given puts aside what the kind did
        read = {key: getattr(NOTHING, key) for key in ONE_OF} | read
    if name not in known:
        looks = [LIKE[key] for key in LIKE if read.get(key)]
        looks += ["floor"] * ("solid" in read)  # a gate that stands open
        read = {"like": (*looks, "forbidden")[0]} | read
    return replace(known.get(name, NOTHING), **read)


def _value(doc: Document, path: Path, key: str, value: Any) -> Any:
    """The value of one key of a kind."""
    if key == "like":
        return doc.word(path, value, LOOKS)
    if key == "turn":
        return doc.word(path, value, TURNS)
    if key in ("terminal", "solid", "cue"):
        return doc.flag(path, value)
    if key in ("key", "door") and any(map(str.isspace, doc.string(path, value))):
        raise doc.error(path, f"{'.'.join(path)} is {value!r}, expected a colour in one word")
    return doc.string(path, value)


def check(doc: Document, grid: Grid) -> None:
    """Whatever the kinds on the map speak of is there, once, and can be entered. Raises WorldError."""
    for name, kind in grid.kinds.items():
        for what in ("to", "exit"):
            if (target := getattr(kind, what)) and grid.cells(name):
                _check_target(doc, grid, name, what, target)
    special = sum(grid.cells(name) for name, kind in grid.kinds.items() if kind.key or kind.door)
    if special > MOST:
        raise doc.error(doc.drawn, f"the map has {special} keys and doors, expected at most {MOST}")


def _check_target(doc: Document, grid: Grid, name: str, what: str, target: str) -> None:
    """`to` and `exit` lead to one cell, where one can stand."""
    path = ("cell", name, what) if what in doc.root.get("cell", {}).get(name, {}) else doc.drawn
    sends = f"{name} sends the agent to the {target}"
    if (cells := grid.cells(target)) != 1:
        raise doc.error(path, f"{sends} and the map has {cells}, expected exactly one")
    kind = grid.kinds[target]
    for wrong in ("solid", "door", *(["to"] if what == "to" else [])):
        if getattr(kind, wrong):
            why = {"solid": "is solid", "door": "is a door", "to": f"itself sends on to the {kind.to}"}[wrong]
            raise doc.error(path, f"{sends}, which {why}, expected a kind of cell where one can stay")
