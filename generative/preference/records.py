"""Rows of a preference file, whatever it is stored as, each with its place: every row is read, or named.

    FILE.jsonl              one JSON object a line                          place: FILE.jsonl:17
    FILE.parquet            a column each                                   FILE.parquet, row 17
    FOLDER                  of `datasets.save_to_disk`, or with parquet or JSON Lines files as on the hub

Of a folder with several splits the one named "train" is read, or the only one there is. As on the hub, names say which
split a file is of: its own name up to the number of the part, or else a folder's; one that says none, as pairs.jsonl,
is of a split without a name. A folder is refused where that does not tell which files are meant: where splits have
names and some file has none, or where the files of the split lie in several folders. Files of other splits are passed
over, and so are those that end with neither .parquet nor .jsonl.

    train-00000-of-00002.parquet, train.jsonl, data/train-1.jsonl, default/train/0000.parquet     train
    train_prefs-00000-of-00001.parquet, train_prefs/0000.parquet                                  train_prefs

Of other columns than ours, and those that chat templates are handed, only the names are read. A table that holds fewer
rows than it says, or ends before it says so, is damaged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import ipc, parquet

from generative.jsonl import Fault, decoded, listed, show

COLUMNS = ("prompt", "chosen", "rejected")
TEMPLATE = ("tools", "chat_template_kwargs")
"""Columns that are read besides, where there are any."""

SPLIT = "train"
SAYS = {"train", "training", "test", "testing", "validation", "val", "valid", "dev", "eval", "evaluation"}  # a split
PART = re.compile(r"-\d{5}-of-\d{5}.*$")  # of how many a file is
ROWS = 1024  # of a table, that are turned into objects at a time
END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # of an arrow stream, as every writer of files closes it
Record = tuple[str, dict[str, Any] | Fault]


class RecordError(ValueError):
    """A file or folder holds no rows that could be read; the message names it and says what was expected."""


def records(path: Path, columns: Sequence[str] = COLUMNS) -> Iterator[Record]:
    """(place, the object there or its fault) of every row, in order.

    Args:
        path: what to read.
        columns: ours, of which a row has some: of a table no others are read but `TEMPLATE`.

    Raises RecordError.
    """
    try:
        for file in _files(path):
            yield from (
                _lines(file, columns) if file.suffix in (".jsonl", ".json") else _table(file, (*columns, *TEMPLATE))
            )
    except OSError as error:
        where = error.filename or path
        raise RecordError(f"{where}: {error.strerror or error}; expected rows with {', '.join(columns)}") from None


def reason(error: Exception, most: int = 200) -> str:
    """What an error of somebody else's says, in one line that can be printed."""
    text = "".join(character if character.isprintable() else " " for character in str(error))
    return " ".join(text.split())[:most] or type(error).__name__


def _lines(file: Path, columns: Sequence[str]) -> Iterator[Record]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield f"{file}:{number}", decoded(line.rstrip(b"\r\n"), columns)


def _table(file: Path, asked: Sequence[str]) -> Iterator[Record]:
    """Rows of a file of parquet, or of arrow as `datasets` writes it."""
    number = 0
    try:
        for names, batch in _batches(file, asked):
            columns = {name: batch.column(name).to_pylist() for name in asked if name in names}
            for row in range(batch.num_rows):
                number += 1
                yield (
                    f"{file}, row {number}",
                    dict.fromkeys(names) | {name: column[row] for name, column in columns.items()},
                )
    except RecordError:
        raise
    except Exception as error:  # the bytes of a damaged file decide what pyarrow stumbles over
        if isinstance(error, OSError) and error.errno:
            raise  # it cannot be opened
        raise RecordError(f"{file}: damaged after row {number} ({reason(error)})") from None


def _batches(file: Path, columns: Sequence[str]) -> Iterator[tuple[list[str], Any]]:
    """(the names of all columns, some rows of ours). Raises ArrowException where there are fewer than there should."""
    if file.suffix == ".parquet":
        with parquet.ParquetFile(file) as table:
            names, rows = _unique(file, table.schema_arrow.names, columns), 0
            for batch in table.iter_batches(batch_size=ROWS, columns=list(columns)):
                rows += batch.num_rows
                yield names, batch
            if rows != table.metadata.num_rows:
                raise pyarrow.ArrowInvalid(f"it says that it has {table.metadata.num_rows}")
    else:
        with pyarrow.memory_map(str(file)) as source:
            if source.read_at(len(END), max(source.size() - len(END), 0)) != END:
                raise pyarrow.ArrowInvalid("it ends without the mark of its end")
            with ipc.open_stream(source) as stream:
                names = _unique(file, stream.schema.names, columns)
                for batch in stream:
                    batch.validate(full=True)  # else a wrong offset is a wrong address
                    for first in range(0, batch.num_rows, ROWS):
                        yield names, batch.slice(first, ROWS)
                if source.tell() != source.size():
                    raise pyarrow.ArrowInvalid("it goes on after the mark of its end")


def _unique(file: Path, names: list[str], columns: Sequence[str]) -> list[str]:
    """The names themselves. Raises RecordError for one of ours that is there twice."""
    for name in columns:
        if names.count(name) > 1:
            raise RecordError(f"{file}: {names.count(name)} columns are named {name!r}; expected one")
    return names


def _files(path: Path) -> list[Path]:
    """The files to read, in order."""
    if not path.is_dir():
        if path.suffix not in (".jsonl", ".json", ".parquet", ".arrow"):
            raise RecordError(f"{path}: expected a .jsonl or .parquet file, or the folder of a data set")
        return [path]
    if (file := path / "dataset_dict.json").is_file():
        splits = [_name(file, split) for split in _listed(file, "splits")]
        return _saved(path / _one(path, splits, "the folder of one"))
    if (path / "state.json").is_file():
        return _saved(path)
    found = sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".jsonl") and p.is_file())
    if not found:
        raise RecordError(f"{path}: no .parquet, .jsonl or saved data set in this folder")
    split_of = {file: _split(file.relative_to(path)) for file in found}
    nameless = [file for file in found if not split_of[file]]
    if nameless and len(nameless) < len(found):
        split = next(filter(None, split_of.values()))
        words = f"{nameless[0].relative_to(path)} says no split, and others are of {split}"
        raise RecordError(f"{path}: {words}; expected files of one split, name the one to read")
    split = _one(path, sorted(set(split_of.values())), "a file of one")
    chosen = [file for file in found if split_of[file] == split]
    folders = sorted({str(file.parent.relative_to(path)) for file in chosen})
    if len(folders) > 1:
        words = f"{split or 'its'} files are in several folders, {listed(folders)}"
        raise RecordError(f"{path}: {words}; expected them in one, name one of these folders or a file")
    return chosen


def _split(file: Path) -> str:
    """The split that a file is of, by its own name or that of the nearest folder, or "" where none says one."""
    for name in (PART.sub("", file.stem), *(folder.name for folder in file.parents)):
        name = re.sub(r"[-_. \d]+$", "", name).lower()
        if SAYS & set(re.split(r"[-_. ]", name)):
            return name
    return ""


def _saved(folder: Path) -> list[Path]:
    """The arrow files of `datasets.save_to_disk`."""
    file = folder / "state.json"
    files = [
        folder / _name(file, each.get("filename") if isinstance(each, dict) else each)
        for each in _listed(file, "_data_files")
    ]
    if not files:
        raise RecordError(f"{file}: names no file of the data set")
    return files


def _listed(file: Path, key: str) -> list[Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))[key]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(f"{file}: not what `datasets` writes ({type(error).__name__}: {reason(error)})") from None
    if not isinstance(found, list):
        raise RecordError(f"{file}: {key} is {show(found)}; expected a list")
    return found


def _name(file: Path, found: object) -> str:
    """A name that stands in `file`. Raises RecordError for what names nothing in its folder."""
    if not isinstance(found, str) or not found or Path(found).name != found or not found.isprintable():
        raise RecordError(f"{file}: {show(found)} where the name of a file or folder beside it was expected")
    return found


def _one(path: Path, splits: list[str], which: str) -> str:
    if SPLIT in splits:
        return SPLIT
    if len(splits) == 1:
        return splits[0]
    raise RecordError(f"{path}: holds {listed(splits)}; expected one split, or one named {SPLIT}: name {which}")
