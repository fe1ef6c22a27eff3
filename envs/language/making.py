"""Reading `make` and the maker's table: worlds that are computed, not drawn by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from envs.language.document import Document
from envs.makers import MAKERS, MapMaker, TableMaker
from envs.makers.made import Made, Parameter

COUNT = Parameter(1, 1, 10_000, whole=True)  # of worlds, one for each seed


def maker(doc: Document) -> MapMaker | TableMaker | None:
    """What `make` names; None without it. Raises WorldError, as all of these do."""
    if "make" not in doc.root:
        return None
    if "map" in doc.root:
        raise doc.error(("make",), "the world has both a map and make, expected one of them")
    return MAKERS[doc.word(("make",), doc.root["make"], MAKERS)]


def draws(doc: Document, maker: MapMaker) -> list[Callable[[], tuple[str, ...]]]:
    """What draws each map: one, or one for each of `count` seeds. Nothing is drawn yet."""
    if "seed" not in maker.parameters:
        return [partial(maker.draw, **_parameters(doc, maker.parameters))]
    given = _parameters(doc, {**maker.parameters, "count": COUNT})
    seed, count = int(given.pop("seed")), int(given.pop("count"))
    return [partial(maker.draw, seed=seed + i, **given) for i in range(count)]


def made(doc: Document, maker: TableMaker) -> Made:
    """The tables that the maker makes."""
    return maker.make(**_parameters(doc, maker.parameters))


def _parameters(doc: Document, known: Mapping[str, Parameter]) -> dict[str, float | int]:
    """A value for each parameter of the maker."""
    name = doc.root["make"]
    given: dict[str, Any] = doc.table((name,), doc.root.get(name, {}), known)
    values: dict[str, float | int] = {}
    for key, (default, low, high, whole) in known.items():
        value, path = given.get(key, default), (name, key)
        values[key] = doc.whole(path, value, low, high) if whole else doc.number(path, value, float(low), float(high))
    return values
