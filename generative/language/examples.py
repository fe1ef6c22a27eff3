"""Demonstrations to learn from: JSON Lines with the strings `prompt` and `completion`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from generative import jsonl

COLUMNS = ("prompt", "completion")


class ExampleError(ValueError):
    """A file of demonstrations cannot be used; the message names the file, the line and what was expected there."""


@dataclass(frozen=True)
class Example:
    """A prompt and what is to follow it."""

    prompt: str
    completion: str


def read_examples(path: Path) -> list[Example]:
    """All examples of the file, in order. Raises ExampleError at the first line that is none, or for no lines."""
    found = []
    try:
        for line, row in jsonl.lines(path, COLUMNS):
            if isinstance(row, jsonl.Fault):
                raise ExampleError(f"{path}:{line}: {row.message}")
            if not row["completion"]:
                raise ExampleError(f"{path}:{line}: the completion is empty; there is nothing to learn")
            found.append(Example(**row))
    except OSError as error:
        words = "expected `mazes`, or a JSON Lines file with prompt and completion"
        raise ExampleError(f"{path}: {error.strerror or error}; {words}") from None
    if not found:
        raise ExampleError(f"{path}: holds no example; expected one JSON object a line with {', '.join(COLUMNS)}")
    return found
