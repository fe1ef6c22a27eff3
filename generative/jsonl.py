"""JSON Lines with columns of text: one object a line, every line either read or named with what is wrong with it.

    {"prompt": "...", "chosen": "...", "rejected": "..."}

Blank lines are skipped. A line that is no such object becomes a `Fault`, never an exception, so that a reader may
refuse the file at the first one or count them all.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "not_json",
    "not_object",
    "missing_column",
    "not_string",
    "empty",
    "identical",
    "not_tokenised",
    "overlong_prompt",
    "unscored",
]


@dataclass(frozen=True)
class Fault:
    """Why a line cannot be used."""

    kind: Kind
    message: str


def lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str] | Fault]]:
    """(line number from 1, its columns or its fault) for every line that is not blank. Raises OSError."""
    for line, row in enumerate(path.read_bytes().split(b"\n"), 1):
        if row.strip():
            yield line, parse(row, columns)


def decoded(row: bytes, columns: Sequence[str]) -> dict[str, Any] | Fault:
    """The object of one line, whatever it holds; `columns` are what was expected in it."""
    try:
        value = json.loads(row.decode("utf-8-sig"), object_pairs_hook=_once)
    except _TwiceError as error:
        return Fault("not_object", f"{show(str(error))} is there twice in one object; expected one value for it")
    except (ValueError, RecursionError) as error:
        what = "a list over several lines" if row.strip() == b"[" else f"not JSON ({error})"
        return Fault("not_json", f"{what}; expected an object with {', '.join(columns)}, in one line")
    if not isinstance(value, dict):
        return Fault("not_object", f"{show(value)} where an object with {', '.join(columns)} was expected")
    return value


class _TwiceError(Exception):
    """An object names something twice; which of the values is meant, nobody knows."""


def _once(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        counts = Counter(name for name, _ in items)
        raise _TwiceError(next(name for name, count in counts.items() if count > 1))
    return found


def parse(row: bytes, columns: Sequence[str]) -> dict[str, str] | Fault:
    """The columns of one line."""
    value = decoded(row, columns)
    if isinstance(value, Fault):
        return value
    for column in columns:
        if column not in value:
            near = difflib.get_close_matches(column, [key for key in value if key not in columns], n=1)
            hint = f"; did {near[0]!r} mean it?" if near else f"; it holds {', '.join(map(repr, value)) or 'nothing'}"
            return Fault("missing_column", f"the column {column!r} is missing{hint}")
        if not isinstance(value[column], str):
            return Fault("not_string", f"{column!r} is {show(value[column])}; expected a string")
        if any("\ud800" <= character <= "\udfff" for character in value[column]):
            return Fault("not_string", f"{column!r} holds half of a surrogate pair; expected Unicode text")
    return {column: value[column] for column in columns}


def show(value: object) -> str:
    """The value, cut to what fits in a message."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def listed(names: Collection[str], most: int = 8) -> str:
    """The names, the first of many."""
    found = ", ".join(show(name) for name in islice(names, most)) or "nothing"
    return f"{found} and {len(names) - most} more" if len(names) > most else found
