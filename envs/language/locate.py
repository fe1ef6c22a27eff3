"""Where a key of a TOML document stands in its text: tomllib keeps no line numbers, and a person needs one."""

from __future__ import annotations

import re
from bisect import bisect_right

Place = tuple[int, int]  # line and column, from 1

SPACE = re.compile(r"[ \t]*")
BLANK = re.compile(r"(?:\s|#[^\n]*)*")  # between entries: spaces, line breaks and comments
BARE = re.compile(r"[\w-]+")
STRING = re.compile(
    r'"""[^"\\]*(?:(?:\\[\s\S]|"(?!""))[^"\\]*)*"{3,5}'
    r"|'''[\s\S]*?'{3,5}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
)
SCALAR = re.compile(r"[^,\]}\n#]*")
QUOTES = ('"""', "'''")


def keys(text: str) -> dict[tuple[str, ...], Place]:
    """The place of every table and key of a valid document, by path; keys of inline tables included.

    A table that is only implied, the `cell` of `[cell.goal]`, stands where its first part does.
    """
    return _Scanner(text).places


class _Scanner:
    """Each method reads one thing at `self.at` and leaves `self.at` behind it."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.breaks = [-1, *(found.start() for found in re.finditer("\n", text))]
        self.places: dict[tuple[str, ...], Place] = {}
        table: tuple[str, ...] = ()
        while self._next():
            if text[self.at] == "[":
                self._skip(re.compile(r"\[+[ \t]*"))
                table = self._key(())
                self._skip(re.compile(r"\]+"))
            else:
                self._entry(table)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        written = found[0] if found else ""
        self.at += len(written)
        return written

    def _next(self) -> str:
        """The next character that means something."""
        self._skip(BLANK)
        return self.text[self.at : self.at + 1]

    def _key(self, above: tuple[str, ...]) -> tuple[str, ...]:
        """A dotted key; every part of it is given its place, unless it has one."""
        line = bisect_right(self.breaks, self.at - 1)
        place = (line, self.at - self.breaks[line - 1])
        while True:
            self._skip(SPACE)
            above = (*above, self._skip(BARE) or self._skip(STRING)[1:-1])
            self.places.setdefault(above, place)
            self._skip(SPACE)
            if not self.text.startswith(".", self.at):
                return above
            self.at += 1

    def _entry(self, table: tuple[str, ...]) -> None:
        path = self._key(table)
        self.at += 1  # the equals sign
        self._value(path)

    def _value(self, path: tuple[str, ...]) -> None:
        opening = self._next()
        if opening == "[":
            self.at += 1
            while self._next() != "]":
                self._value(path)
                self.at += self._next() == ","
            self.at += 1
        elif opening == "{":
            self.at += 1
            while self._next() != "}":
                self._entry(path)
                self.at += self._next() == ","
            self.at += 1
        elif opening in ('"', "'"):
            self._skip(STRING)
        else:
            self._skip(SCALAR)


def string(text: str, key: Place) -> tuple[int, int, bool]:
    """Line and column of the first character of the string at `key`, and whether it spans lines."""
    line, column = key
    written = text.split("\n")[line - 1].rstrip("\r")
    opening = re.compile(r"=\s*(\"\"\"|'''|\"|'|)").search(written, column - 1)
    if opening is None or opening[1] not in QUOTES:
        return line, opening.end() + 1 if opening else column, False
    if not written[opening.end() :]:  # TOML drops the line break after the opening quotes
        return line + 1, 1, True
    return line, opening.end() + 1, True


def syntax(message: str, text: str) -> tuple[int, int, str]:
    """Line, column and remaining message of what tomllib says of a syntax error."""
    if found := re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL):
        return int(found[2]), int(found[3]), found[1]
    lines = text.splitlines() or [""]
    return len(lines), len(lines[-1]) + 1, message.replace(" (at end of document)", ", at the end of the file")
