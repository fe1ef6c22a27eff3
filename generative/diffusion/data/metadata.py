"""What a folder says of its images: `metadata.jsonl`, the names of subfolders, or nothing. No image is opened here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from generative.diffusion.data.report import Report

METADATA = "metadata.jsonl"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"}


@dataclass(frozen=True)
class Entry:
    """One image that may be read.

    Attributes:
        file: where it is.
        name: what to call it in a report.
        text: its caption.
        label: its class.
    """

    file: Path
    name: str
    text: str | None = None
    label: int | str | None = None


def entries(root: Path, report: Report) -> list[Entry]:
    """The images of a folder in the order of `metadata.jsonl`, or else of their names; findings go to the report."""
    if (root / METADATA).is_file():
        return list(_listed(root, report))
    inside = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    bare = [Entry(file, file.name) for file in _images(root, report, deep=False)]
    by_class = [(path.name, file) for path in inside for file in _images(path, report, deep=True)]
    if bare:  # then subfolders name no classes
        return bare + [Entry(file, str(file.relative_to(root))) for _, file in by_class]
    return [Entry(file, str(file.relative_to(root)), label=label) for label, file in by_class]


def agree(given: Sequence[Entry], report: Report) -> list[Entry]:
    """Those that have a caption and a label, each where any has."""
    texts, labels = (any(getattr(entry, key) is not None for entry in given) for key in ("text", "label"))
    kept = []
    for entry in given:
        if texts and entry.text is None:
            report.add("no caption", entry.name)
        elif labels and entry.label is None:
            report.add("no label", entry.name)
        else:
            kept.append(entry)
    return kept


def _images(root: Path, report: Report, *, deep: bool) -> Iterator[Path]:
    """Files that are named like images, in order; hidden ones are passed over in silence."""
    for path in sorted(root.rglob("*") if deep else root.iterdir()):
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        if path.suffix.lower() in SUFFIXES:
            yield path
        else:
            report.add("other", path.name)


def _listed(root: Path, report: Report) -> Iterator[Entry]:
    """The images that `metadata.jsonl` names, each once; then what it does not name is reported."""
    named = set()
    for number, row in enumerate((root / METADATA).read_bytes().split(b"\n"), 1):
        if not row.strip():
            continue
        entry = _parse(root, row)
        if entry is None:
            report.add("bad line", f"line {number}")
            continue
        try:
            place = entry.file.resolve()
            inside, there = place.is_relative_to(root.resolve()), place.is_file()
        except (OSError, ValueError, RuntimeError):  # a name too long, with a zero byte, a loop of links
            inside = there = False
            place = entry.file
        if place in named:
            report.add("repeated", entry.name)
        elif there and inside:
            named.add(place)
            yield entry
        else:
            report.add("outside" if there else "missing", entry.name)
    others = Report()  # of files that are no images, nothing needs to be said where a list names the images
    for path in _images(root, others, deep=True):
        if path.resolve() not in named:
            report.add("unlisted", str(path.relative_to(root)))


def _parse(root: Path, row: bytes) -> Entry | None:
    """One line, or None: no object, no file_name, or a text that is no text."""
    try:
        value = json.loads(row.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    name, text, label = (value.get(key) for key in ("file_name", "text", "label"))
    if not isinstance(name, str) or not name or not isinstance(text, str | None):
        return None
    if isinstance(label, bool) or not isinstance(label, int | str | None) or not _unicode(name, text, label):
        return None
    return Entry(root / name, name, text if text and text.strip() else None, label)


def _unicode(*words: object) -> bool:
    """No text holds half of a surrogate pair, which JSON can spell and no file can."""
    return not any("\ud800" <= c <= "\udfff" for word in words if isinstance(word, str) for c in word)
