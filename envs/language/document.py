"""A TOML document that knows where everything in it stands, and checks it piece by piece.

Every complaint is one line: the file, the line and the column (or the override it came from), what is wrong, what was
expected, and the nearest known word where there is one.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from envs.language import locate

Path = tuple[str, ...]

LARGEST = 3e38  # number: what float32 holds, in which simulators keep rewards


class WorldError(ValueError):
    """A world that cannot be: one line that says where, what is wrong and what was expected."""


def near(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for a word that resembles a known one, else ''."""
    plain = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower(), plain, n=1)
    return f"; did you mean {plain[found[0]]!r}?" if found else ""


def value_of(text: Any) -> Any:
    """What an override means: a string is read as TOML where it can be, and is itself where it cannot.

    Raises:
        WorldError: for one that is nested too deeply to be read.
    """
    if isinstance(text, str):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
        except RecursionError:
            start = text[:20].replace("\n", "\\n")
            raise WorldError(f"override {start}... is nested too deeply, expected a value of TOML") from None
    return text


class Document:
    """A parsed document after its overrides.

    Args:
        text: the TOML text.
        file: its name, for messages.
        overrides: values by dotted key, `{"reward.forbidden": "-10"}`, read by `value_of`.

    Raises:
        WorldError: from the constructor for broken syntax; from every check for a value that fails it.
    """

    def __init__(self, text: str, file: str, overrides: Mapping[str, Any]) -> None:
        self.text, self.file = text, file
        self.overridden: dict[Path, str] = {}
        try:
            self.root: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line, column, message = locate.syntax(str(error), text)
            raise WorldError(f"{file}:{line}:{column}: this is no TOML: {message}") from None
        except RecursionError:
            raise WorldError(f"{file}:1:1: this is nested too deeply, expected a world in TOML") from None
        self.places = locate.keys(text)
        for key, value in overrides.items():
            self._override(key, value)

    @property
    def drawn(self) -> Path:
        """What the map comes from: its text, or its maker's table or name."""
        maker = str(self.root.get("make"))
        return ("map",) if "map" in self.root else (maker,) if maker in self.root else ("make",)

    def error(self, path: Path, message: str, at: locate.Place | None = None) -> WorldError:
        """About the value at `path`: at its place in the file, or at the nearest table above it."""
        for other, override in self.overridden.items():  # at, above or below the path
            if path and all(a == b for a, b in zip(path, other, strict=False)):
                return WorldError(f"{self.file}: override {override}: {message}")
        while path and path not in self.places:
            path = path[:-1]
        line, column = at or self.places.get(path, (1, 1))
        return WorldError(f"{self.file}:{line}:{column}: {message}")

    def _override(self, key: str, value: Any) -> None:
        """Put `value` at the dotted `key`."""
        path = tuple(key.split("."))
        self.overridden[path] = f"{key}={value}".replace("\n", "\\n")
        table = self.root
        for part in path[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise self.error(path, f"{part} is {table!r}, which has no key {path[-1]!r}")
        table[path[-1]] = value_of(value)

    def number(self, path: Path, value: Any, low: float = -LARGEST, high: float = LARGEST) -> float:
        """A finite number between `low` and `high`, or a fraction written as a string."""
        number = math.nan
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            with contextlib.suppress(ValueError, ZeroDivisionError, OverflowError):
                number = float(Fraction(value) if "/" in str(value) else value)  # 1e99999999 takes Fraction a while
        if not math.isfinite(number):
            raise self.error(path, f"{'.'.join(path)} is {value!r}, expected a finite number")
        if not low <= number <= high:
            raise self.error(path, f"{'.'.join(path)} is {value!r}, expected a number from {low:g} to {high:g}")
        return number

    def whole(self, path: Path, value: Any, low: float | int, high: float | int) -> int:
        """A whole number between `low` and `high`."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            span = f"from {low:.15g} to {high:.15g}" if math.isfinite(high) else f"at least {low:.15g}"
            raise self.error(path, f"{'.'.join(path)} is {value!r}, expected a whole number {span}")
        return value

    def flag(self, path: Path, value: Any) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            raise self.error(path, f"{'.'.join(path)} is {value!r}, expected true or false")
        return value

    def chances(self, path: Path, value: Any, known: Iterable[str] = ()) -> dict[str, float]:
        """A table of probabilities that sum to 1, to 1e-9 as written and then exactly; those of 0 are left out."""
        given = self.table(path, value, known)
        chances = {name: self.number((*path, name), chance, 0.0, 1.0) for name, chance in given.items()}
        total = sum(chances.values())
        if abs(total - 1) > 1e-9:
            raise self.error(path, f"{'.'.join(path)} sums to {total:.9g}, expected 1")
        return {name: chance / total for name, chance in chances.items() if chance}

    def string(self, path: Path, value: Any) -> str:
        """A string."""
        if not isinstance(value, str):
            raise self.error(path, f"{'.'.join(path)} is {value!r}, expected a string")
        return value

    def word(self, path: Path, value: Any, known: Iterable[str]) -> str:
        """One of the known words."""
        known = tuple(known)
        if self.string(path, value) not in known:
            listed = ", ".join(map(repr, known))
            raise self.error(path, f"{'.'.join(path)} is {value!r}, expected one of {listed}{near(value, known)}")
        return value

    def table(self, path: Path, value: Any, known: Iterable[str] = ()) -> dict[str, Any]:
        """A table whose keys are all known; without known keys, any table."""
        if not isinstance(value, dict):
            raise self.error(path, f"{'.'.join(path)} is {value!r}, expected a table")
        for key in value if known else ():
            if key not in known:
                where = f"in {'.'.join(path)} " if path else ""
                message = f"key {key!r} {where}is unknown, expected one of {', '.join(known)}{near(key, known)}"
                raise self.error((*path, key), message)
        return value
