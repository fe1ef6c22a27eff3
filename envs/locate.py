"""Where a key of a TOML document stands in its text: tomllib keeps no line numbers, and a person needs one."""

from __future__ import annotations

import re

Place = tuple[int, int]  # line and column, from 1

TABLE = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
KEY = re.compile(r"\s*([\w\-.\"']+)\s*=\s*")
INLINE = re.compile(r"[{,]\s*([\w\-.\"']+)\s*=")
QUOTES = ('"""', "'''")


def keys(text: str) -> dict[tuple[str, ...], Place]:
    """The place of every table and key, by path; keys of an inline table on its key's line included."""
    places: dict[tuple[str, ...], Place] = {}
    table: tuple[str, ...] = ()
    closing = ""  # the quotes that end the string we are in
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if header := TABLE.match(line):
            table = _path(header[1])
            places.setdefault(table, (number, header.start(1) + 1))
        elif key := KEY.match(line):
            path = table + _path(key[1])
            places.setdefault(path, (number, key.start(1) + 1))
            value = line[key.end() :]
            if value.startswith("{"):
                for inner in INLINE.finditer(line, key.end()):
                    places.setdefault(path + _path(inner[1]), (number, inner.start(1) + 1))
            for quotes in QUOTES:
                if value.startswith(quotes) and quotes not in value[3:]:
                    closing = quotes
    return places


def string(text: str, key: Place) -> tuple[int, int, bool]:
    """Line and column of the first character of the string at `key`, and whether it spans lines."""
    line, column = key
    written = text.splitlines()[line - 1]
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


def _path(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip(" \t\"'") for part in dotted.split("."))
