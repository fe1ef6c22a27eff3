"""Preference files: JSON Lines, one object a line with the strings `prompt`, `chosen` and `rejected`.

`read` is for training: it refuses the file at the first line that cannot teach anything, and names that line.
`check` is for looking: it counts every kind of fault, and goes on.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from generative import jsonl
from generative.jsonl import Fault

COLUMNS = ("prompt", "chosen", "rejected")


class PairError(ValueError):
    """A preference file cannot be used; the message names the file, the line and what was expected there."""


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt, of which the first was preferred."""

    prompt: str
    chosen: str
    rejected: str


@dataclass
class Findings:
    """What a preference file holds. A line counts under one of the first faults, or is usable."""

    pairs: int = 0
    """Lines that are not blank."""
    usable: int = 0
    """Pairs that training would take."""
    not_json: int = 0
    not_object: int = 0
    missing_column: int = 0
    not_string: int = 0
    empty: int = 0
    """The chosen or the rejected side is empty or blank."""
    identical: int = 0
    """Both sides are the same text: no gradient."""
    duplicated: int = 0
    """Usable pairs that stood in the file before, word for word."""
    contradictory: int = 0
    """Usable pairs that stood in the file before with the sides exchanged."""
    chosen_length: float = 0.0
    """Mean length of the chosen side over usable pairs, in characters."""
    rejected_length: float = 0.0
    chosen_longer: float = 0.0
    """Share of usable pairs whose chosen side is the longer; far from a half, length alone may be what is learned."""
    first: dict[str, str] = field(default_factory=dict)
    """The message of the first line found with each fault."""


def read(path: Path) -> list[Pair]:
    """All pairs of the file, in order. Raises PairError at the first line that is no usable pair, or for no lines."""
    pairs = []
    for line, found in _lines(path):
        if isinstance(found, Fault):
            raise PairError(f"{path}:{line}: {found.message}")
        pairs.append(found)
    if not pairs:
        raise PairError(f"{path}: holds no pair; expected one JSON object a line with {', '.join(COLUMNS)}")
    return pairs


def write(path: Path, pairs: Iterable[Pair]) -> None:
    """Write the pairs so that `read` gives them back."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            row = {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def check(path: Path) -> Findings:
    """Count what the file holds. Raises PairError only when it cannot be opened."""
    findings = Findings()
    seen: set[Pair] = set()
    lengths = [0, 0, 0]  # characters chosen, characters rejected, chosen longer
    for line, found in _lines(path):
        findings.pairs += 1
        if isinstance(found, Fault):
            setattr(findings, found.kind, getattr(findings, found.kind) + 1)
            findings.first.setdefault(found.kind, f"{path}:{line}: {found.message}")
            continue
        findings.usable += 1
        for kind, earlier in (
            ("duplicated", found),
            ("contradictory", Pair(found.prompt, chosen=found.rejected, rejected=found.chosen)),
        ):
            if earlier in seen:
                setattr(findings, kind, getattr(findings, kind) + 1)
                findings.first.setdefault(kind, f"{path}:{line}: {kind} an earlier line")
        seen.add(found)
        chosen, rejected = len(found.chosen), len(found.rejected)
        lengths = [lengths[0] + chosen, lengths[1] + rejected, lengths[2] + (chosen > rejected)]
    if findings.usable:
        findings.chosen_length, findings.rejected_length, findings.chosen_longer = (
            x / findings.usable for x in lengths
        )
    return findings


def _lines(path: Path) -> Iterator[tuple[int, Pair | Fault]]:
    """(line number from 1, what the line holds) for every line that is not blank."""
    try:
        for line, row in jsonl.lines(path, COLUMNS):
            yield line, row if isinstance(row, Fault) else _pair(row)
    except OSError as error:
        raise PairError(f"{path}: {error.strerror or error}; expected a JSON Lines file of preference pairs") from None


def _pair(row: dict[str, str]) -> Pair | Fault:
    for column in ("chosen", "rejected"):
        if not row[column].strip():
            return Fault("empty", f"the {column} side is empty; a pair needs two completions")
    if row["chosen"] == row["rejected"]:
        text = jsonl.show(row["chosen"])
        return Fault("identical", f"chosen and rejected are the same text {text}: no preference to learn")
    return Pair(**row)
