"""What a caption says of a scene, and when that is true.

    caption   a THING  |  two THINGs  |  three THINGs  |  a THING RELATION a THING
    THING     COLOUR SHAPE                       "red agent"; of several "red agents"
    RELATION  left of | right of | above | below

A caption tells everything that is in the picture. "left of" and "right of" mean in the same row, "above" and "below"
in the same column; how far apart does not matter. There are 36 things and 5,292 captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

SHAPES = ("agent", "goal", "key", "door", "ball", "box")
COLOURS = ("red", "yellow", "green", "blue", "purple", "grey")
COUNTS = {1: "a", 2: "two", 3: "three"}
RELATIONS = ("left of", "right of", "above", "below")

Cell = tuple[int, int]
"""(row, column), from 0 at the top left."""


class CaptionError(ValueError):
    """Words that are no caption of a scene; the message says what was expected."""


@dataclass(frozen=True, order=True)
class Thing:
    """One object."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


Layout = Mapping[Cell, Thing]
"""What stands where."""


@dataclass(frozen=True)
class Some:
    """`count` objects of one kind, anywhere, and nothing else."""

    count: int
    thing: Thing


@dataclass(frozen=True)
class Related:
    """Two objects, in line, and nothing else."""

    first: Thing
    relation: str
    second: Thing


Meaning = Some | Related


def caption(meaning: Meaning) -> str:
    """The words for it; `parse` is the inverse."""
    if isinstance(meaning, Related):
        return f"a {meaning.first} {meaning.relation} a {meaning.second}"
    ending = "" if meaning.count == 1 else "es" if meaning.thing.shape == "box" else "s"
    return f"{COUNTS[meaning.count]} {meaning.thing}{ending}"


MEANINGS: dict[str, Meaning] = {}


def meanings() -> Iterator[Meaning]:
    """All there are: what stands alone, what stands there several times, what stands in relation."""
    things = [Thing(colour, shape) for colour, shape in product(COLOURS, SHAPES)]
    yield from (Some(count, thing) for count, thing in product(COUNTS, things))
    yield from (Related(first, relation, second) for first, relation, second in product(things, RELATIONS, things))


MEANINGS.update({caption(meaning): meaning for meaning in meanings()})


def parse(text: str) -> Meaning:
    """What a caption means; capitals and spaces do not matter. Raises CaptionError."""
    words = " ".join(text.lower().split())
    if words not in MEANINGS:
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise CaptionError(
            f'{shown!r} is no caption of a scene; expected e.g. "a red agent left of a green goal", "two blue keys", '
            f"of {', '.join(COLOURS)}; {', '.join(SHAPES)}; {', '.join(COUNTS.values())}; {', '.join(RELATIONS)}"
        )
    return MEANINGS[words]


def holds(meaning: Meaning, layout: Layout) -> bool:
    """Whether that is what stands there, all of it and nothing else."""
    things = list(layout.values())
    if isinstance(meaning, Some):
        return things == [meaning.thing] * meaning.count
    if len(things) != 2:
        return False
    (one, another) = layout
    return any(
        layout[a] == meaning.first and layout[b] == meaning.second and related(a, meaning.relation, b)
        for a, b in ((one, another), (another, one))
    )


def related(a: Cell, relation: str, b: Cell) -> bool:
    """Whether cell `a` stands in the relation to cell `b`."""
    (row, column), (other_row, other_column) = a, b
    if relation in ("above", "below"):
        return column == other_column and (row < other_row if relation == "above" else row > other_row)
    return row == other_row and (column < other_column if relation == "left of" else column > other_column)
