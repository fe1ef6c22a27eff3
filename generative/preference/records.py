"""Rows of a preference file, whatever it is stored as, each with its place: every row is read, or named.

    FILE.jsonl              one JSON object a line                          place: FILE.jsonl:17
    FILE.parquet            a column each                                   FILE.parquet, row 17
    FOLDER                  of `datasets.save_to_disk`, or with parquet or JSON Lines files as on the hub

Of a folder with several splits the one named "train" is read, or the only one there is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import ipc, parquet

from generative.jsonl import Fault, decoded, show

COLUMNS = ("prompt", "chosen", "rejected")
SPLIT = "train"
ROWS = 1024  # of a table, that are turned into objects at a time
Record = tuple[str, dict[str, Any] | Fault]


class RecordError(ValueError):
    """A file or folder holds no rows that could be read; the message names it and says what was expected."""


def records(path: Path) -> Iterator[Record]:
    """(place, the object there or its fault) of every row, in order. Raises RecordError."""
    try:
        for file in _files(path):
            yield from _lines(file) if file.suffix in (".jsonl", ".json") else _table(file)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}; expected preference pairs") from None


def _lines(file: Path) -> Iterator[Record]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield f"{file}:{number}", decoded(line, COLUMNS)


def _table(file: Path) -> Iterator[Record]:
    """Rows of a file of parquet, or of arrow as `datasets` writes it."""
    number = 0
    try:
        for batch in _batches(file):
            for row in batch.to_pylist():
                number += 1
                yield f"{file}, row {number}", row
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise RecordError(f"{file}: damaged after row {number} ({' '.join(str(error).split())[:200]})") from None


def _batches(file: Path) -> Iterator[Any]:
    if file.suffix == ".parquet":
        with parquet.ParquetFile(file) as table:
            yield from table.iter_batches(batch_size=ROWS)
    else:
        with pyarrow.memory_map(str(file)) as source, ipc.open_stream(source) as stream:
            for batch in stream:
                for first in range(0, batch.num_rows, ROWS):
                    yield batch.slice(first, ROWS)


def _files(path: Path) -> list[Path]:
    """The files to read, in order."""
    if not path.is_dir():
        if path.suffix not in (".jsonl", ".json", ".parquet", ".arrow"):
            raise RecordError(f"{path}: expected a .jsonl or .parquet file, or the folder of a data set")
        return [path]
    if (path / "dataset_dict.json").is_file():
        splits = _listed(path / "dataset_dict.json", "splits")
        return _saved(path / _one(path, [str(split) for split in splits]))
    if (path / "state.json").is_file():
        return _saved(path)
    found = sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".jsonl") and p.is_file())
    if not found:
        raise RecordError(f"{path}: no .parquet, .jsonl or saved data set in this folder")
    split_of = {
        file: re.split(r"[-_.]", file.name)[0] if file.parent in (path, path / "data") else "" for file in found
    }
    split = _one(path, sorted(set(split_of.values())))
    return [file for file in found if split_of[file] == split]


def _saved(folder: Path) -> list[Path]:
    """The arrow files of `datasets.save_to_disk`."""
    files = _listed(folder / "state.json", "_data_files")
    return [folder / str(each["filename"]) for each in files if isinstance(each, dict) and "filename" in each]


def _listed(file: Path, key: str) -> list[Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))[key]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{file}: not what `datasets` writes ({error!r})") from None
    if not isinstance(found, list):
        raise RecordError(f"{file}: {key} is {show(found)}; expected a list")
    return found


def _one(path: Path, splits: list[str]) -> str:
    if SPLIT in splits:
        return SPLIT
    if len(splits) == 1:
        return splits[0]
    raise RecordError(f"{path}: holds {', '.join(splits)}; expected one split, or one named {SPLIT}")
