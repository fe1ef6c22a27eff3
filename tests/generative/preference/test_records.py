"""Which files of a folder are read, and that of each all rows are, in order and by their number."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from pyarrow import ipc, parquet

from generative.preference import records as module
from generative.preference.records import RecordError, records


def table(tag: str, rows: int = 1) -> pyarrow.Table:
    return pyarrow.table(
        {name: [f"{tag} {name} {i}" for i in range(rows)] for name in ("prompt", "chosen", "rejected")}
    )


def folder(path: Path, *names: str) -> Path:
    """A folder with a file of each name, of one row that says in which file it is."""
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl"):
            (path / name).write_text(f'{{"prompt": "{name} prompt 0"}}\n')
        else:
            parquet.write_table(table(name), path / name)
    return path


def read(path: Path) -> list[str]:
    """The names that the rows say."""
    found = []
    for _, row in records(path):
        assert isinstance(row, dict)
        found.append(row["prompt"].split()[0])
    return found


PARTS = ("train-00000-of-00002.parquet", "train-00001-of-00002-1a2b3c.parquet")


@pytest.mark.parametrize(
    ("chosen", "others"),
    [
        (PARTS, ["test-00000-of-00001.parquet"]),
        ([f"data/{part}" for part in PARTS], ["data/test-00000-of-00001.parquet", "README.md.parquet.lock"]),
        ([f"en/{part}" for part in PARTS], ["en/test-00000-of-00001.parquet"]),
        (["default/train/0000.parquet", "default/train/0001.parquet"], ["default/test/0000.parquet"]),
        (["train/0000.parquet"], ["test/0000.parquet", "validation.parquet", "dev_2/x.jsonl"]),
        (["train.jsonl"], ["eval.jsonl", "Test.jsonl", "train_sft.jsonl", "testing/train-hard.jsonl"]),
        (["train-0.jsonl", "train.1.jsonl", "train2.jsonl", "train_3.jsonl"], ["pairs-test.jsonl"]),
        (["data/train_prefs-00000-of-00002.parquet", "data/train_prefs-00001-of-00002.parquet"], []),
        (["test_prefs.jsonl"], []),
        (["a.parquet", "b.parquet", "pairs_part1.parquet", "trained.jsonl"], []),
        (["0000.parquet", "0001.parquet"], []),
        (["sub/pairs.jsonl"], []),
    ],
    ids=str,
)
def test_of_a_folder_the_split_named_train_is_read_or_the_only_one(
    chosen: list[str], others: list[str], tmp_path: Path
) -> None:
    assert read(folder(tmp_path, *chosen, *others)) == list(chosen)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            [f"data/{each}-00000-of-00001.parquet" for each in ("train_prefs", "train_sft", "train_gen", "test_prefs")],
            "holds 'test_prefs', 'train_gen', 'train_prefs', 'train_sft'; expected one split, or one named train",
        ),
        (["pairs_train.jsonl", "pairs_test.jsonl"], "holds 'pairs_test', 'pairs_train'; expected one split"),
        (
            ["dev.jsonl", "test.jsonl"],
            "holds 'dev', 'test'; expected one split, or one named train: name a file",
        ),
        ([PARTS[0], f"more/{PARTS[0]}"], "train files are in several folders, '.', 'more'; expected them in one"),
        (["en/train.jsonl", "de/train.jsonl", "de/test.jsonl"], "train files are in several folders, 'de', 'en';"),
        (["en/train/0000.parquet", "de/train/0000.parquet"], "in several folders, 'de/train', 'en/train'; expected"),
        (["en/0000.parquet", "de/0000.parquet"], "its files are in several folders, 'de', 'en'; expected them in one"),
        ([f"{i}/0.parquet" for i in range(10)], "'5', '6', '7' and 2 more; expected"),
        (["train.jsonl", "extra.jsonl"], "extra.jsonl says no split, and others are of train; expected files of one"),
        (["train/0000.parquet", "more.jsonl"], "more.jsonl says no split, and others are of train"),
    ],
    ids=str,
)
def test_a_folder_that_does_not_say_which_files_are_meant_is_refused(
    names: list[str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(RecordError) as caught:
        read(folder(tmp_path / "set", *names))
    assert str(caught.value).startswith(f"{tmp_path / 'set'}: ")
    assert words in str(caught.value)


def stored(path: Path, rows: pyarrow.Table) -> None:
    """In one batch."""
    if path.suffix == ".parquet":
        parquet.write_table(rows, path)
    else:
        with ipc.new_stream(str(path), rows.schema) as stream:
            stream.write_table(rows)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_every_row_of_a_long_table_is_read_and_has_its_number(suffix: str, tmp_path: Path) -> None:
    """Longer than what is turned into objects at a time, twice."""
    path, rows = tmp_path / f"long{suffix}", 2 * module.ROWS + 5
    stored(path, table("long", rows))
    found = list(records(path))
    assert [place for place, _ in found] == [f"{path}, row {i + 1}" for i in range(rows)]
    assert [row["chosen"] for _, row in found if isinstance(row, dict)] == [f"long chosen {i}" for i in range(rows)]


def test_the_files_of_a_saved_data_set_are_read_as_it_lists_them(tmp_path: Path) -> None:
    names = ["data-1.arrow", "data-0.arrow", "data-2.arrow"]
    for name in names:
        stored(tmp_path / name, table(name))
    listed = ", ".join(f'{{"filename": "{name}"}}' for name in names)
    (tmp_path / "state.json").write_text(f'{{"_data_files": [{listed}]}}')
    assert read(tmp_path) == names


def test_a_parquet_file_that_gives_fewer_rows_than_it_says_is_damaged(tmp_path: Path) -> None:
    """The number of rows stands in the file once for all, and once for each of its groups: the first is made another.

    Source: parquet-format, parquet.thrift: FileMetaData.num_rows is field 3, an i64; thrift's compact protocol writes
    it as 0x16 and twice the number, and so the 3 as 0x16 0x06.
    """
    path = tmp_path / "short.parquet"
    stored(path, table("short", 3))
    content = path.read_bytes()
    at = content.index(b"\x16\x06", len(content) - 8 - int.from_bytes(content[-8:-4], "little"))
    path.write_bytes(content[: at + 1] + b"\x08" + content[at + 2 :])
    told = parquet.read_metadata(path)
    assert (told.num_rows, told.row_group(0).num_rows) == (4, 3)
    with pytest.raises(RecordError, match=r"short\.parquet: damaged after row 3 \(it says that it has 4\)"):
        list(records(path))
