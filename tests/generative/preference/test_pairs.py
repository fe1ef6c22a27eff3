"""Preference files: every way to store them, what is refused, with which place, and what the census counts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from generative.jsonl import Fault
from generative.preference.pairs import Message, Pair, PairError, pair_of, rows, write
from generative.preference.preflight import UNREADABLE, Findings, preflight

GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}

BAD = {
    "not_json": ('{"prompt": "p", ', "not JSON"),
    "not_object": ("[1, 2]", "[1, 2] where an object"),
    "missing_column": (
        '{"prompt": "p", "chosen": "a", "rejcted": "b"}',
        "'rejected' is missing; did 'rejcted' mean it?",
    ),
    "not_string": ('{"prompt": "p", "chosen": 3, "rejected": "b"}', "'chosen' is 3; expected a string"),
    "empty": ('{"prompt": "p", "chosen": "a", "rejected": " "}', "the rejected side is empty"),
    "identical": ('{"prompt": "p", "chosen": "a", "rejected": "a"}', "the same text 'a'"),
}


def file(folder: Path, *lines: str) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> list[Pair]:
    """All pairs of a file in which there is no fault."""
    return list(preflight(path, strict=True).pairs)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CHAT = {
    "prompt": [turn("user", "2 + 2?")],
    "chosen": [turn("assistant", "4")],
    "rejected": [turn("assistant", "5")],
}
CHATTED = Pair((Message("user", "2 + 2?"),), (Message("assistant", "4"),), (Message("assistant", "5"),))


def test_what_is_written_is_read_again(tmp_path: Path):
    pairs = [Pair("", "a", "b"), Pair("line\nbreak \u2028 ü", 'quo"te', "\\"), CHATTED]
    write(tmp_path / "pairs.jsonl", pairs)
    assert read(tmp_path / "pairs.jsonl") == pairs
    assert len((tmp_path / "pairs.jsonl").read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        (CHAT, CHATTED),
        ({"chosen": "Why? Because", "rejected": "Why? No"}, Pair("Why?", " Because", " No")),
        ({"chosen": "one two", "rejected": "one twig"}, Pair("one tw", "o", "ig")),
        ({"chosen": "one\ntwo", "rejected": "one\nnot"}, Pair("one\n", "two", "not")),
        ({"chosen": "one\ttwo", "rejected": "one\tnot"}, Pair("one\t", "two", "not")),
        ({"chosen": "yes", "rejected": "no", "prompt": None}, Pair("", "yes", "no")),
        ({key: CHAT["prompt"] + CHAT[key] for key in ("chosen", "rejected")}, CHATTED),
        ({**GOOD, "score": 3}, Pair("p", "a", "b")),
    ],
)
def test_a_row_is_a_pair_with_or_without_its_prompt(row: dict[str, Any], pair: Pair):
    assert pair_of(row) == pair


@pytest.mark.parametrize(
    ("row", "kind", "message"),
    [
        ({"promt": "p", "chosen": "a", "rejected": "b"}, "missing_column", "did 'promt' mean it"),
        (
            {"prompt": "p", "chosen": CHAT["chosen"], "rejected": "b"},
            "not_string",
            "chosen messages, rejected a string",
        ),
        ({**CHAT, "chosen": [{"role": "assistant"}]}, "not_string", "message 1 of 'chosen' is"),
        ({**CHAT, "chosen": []}, "empty", "the chosen side is empty"),
        ({**CHAT, "prompt": []}, "empty", "the prompt has no messages"),
        ({"chosen": CHAT["chosen"], "rejected": CHAT["rejected"]}, "empty", "the prompt has no messages"),
        ({"chosen": "same", "rejected": "same"}, "identical", "the same text 'same'"),
        ({"chosen": "begins", "rejected": "begins and goes on"}, "empty", "the chosen side is empty"),
        ({"prompt": "\ud800", "chosen": "a", "rejected": "b"}, "not_string", "surrogate"),
        ({**CHAT, "prompt": [turn("\ud800", "x")]}, "not_string", "surrogate"),
        ({**CHAT, "prompt": [turn("user", "\ud800")]}, "not_string", "surrogate"),
    ],
)
def test_what_is_no_pair_says_why(row: dict[str, Any], kind: str, message: str):
    found = pair_of(row)
    assert isinstance(found, Fault)
    assert found.kind == kind
    assert message in found.message


def test_the_same_pairs_come_from_every_kind_of_file(tmp_path: Path):
    """Lines, parquet, a folder saved by `datasets` (one split, or several), and a folder as on the hub."""
    table = pyarrow.Table.from_pylist([CHAT, CHAT])
    write(tmp_path / "lines.jsonl", [CHATTED, CHATTED])
    parquet.write_table(table, tmp_path / "table.parquet")
    for folder in ("saved", "splits/train", "splits/test"):
        (tmp_path / folder).mkdir(parents=True)
        with ipc.new_stream(str(tmp_path / folder / "data-0.arrow"), table.schema) as stream:
            stream.write_table(table if folder != "splits/test" else table.slice(0, 1))
        (tmp_path / folder / "state.json").write_text('{"_data_files": [{"filename": "data-0.arrow"}]}')
    (tmp_path / "splits" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for part in range(2):
        name = f"train-0000{part}-of-00002.parquet"
        parquet.write_table(table.slice(part, 1), tmp_path / "hub" / "data" / name)
    parquet.write_table(table, tmp_path / "hub" / "data" / "test-00000-of-00001.parquet")
    for name in ("lines.jsonl", "table.parquet", "saved", "splits", "hub"):
        assert read(tmp_path / name) == [CHATTED, CHATTED]
    assert [place for place, _ in rows(tmp_path / "table.parquet")][1] == f"{tmp_path / 'table.parquet'}, row 2"


def test_a_folder_that_does_not_say_which_is_refused(tmp_path: Path):
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["one", "two"]}')
    with pytest.raises(PairError, match="holds 'one', 'two'; expected one split, or one named train"):
        read(tmp_path)
    for content in ("[]", "{", '{"splits": 3}'):
        (tmp_path / "dataset_dict.json").write_text(content)
        with pytest.raises(PairError, match=r"dataset_dict\.json"):
            read(tmp_path)
    (tmp_path / "dataset_dict.json").unlink()
    with pytest.raises(PairError, match=r"no \.parquet, \.jsonl or saved data set"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["pairs.parquet", "pairs.arrow"])
def test_a_damaged_table_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"PAR1 and nothing that follows")
    with pytest.raises(PairError, match=f"{name}: damaged after row 0"):
        read(tmp_path / name)


def test_another_kind_of_file_is_refused(tmp_path: Path):
    (tmp_path / "pairs.csv").write_text("prompt,chosen,rejected\n")
    with pytest.raises(PairError, match=r"pairs\.csv: expected a \.jsonl or \.parquet file"):
        read(tmp_path / "pairs.csv")


def test_a_column_that_is_there_twice_is_not_read_as_its_last_value(tmp_path: Path):
    rows = ['{"prompt": "p", "chosen": "a", "chosen": "b", "rejected": "c"}', '{"prompt": "p", "a": 1, "b": 2, "b": 3}']
    for row, name in zip(rows, ("chosen", "b"), strict=True):
        with pytest.raises(PairError, match=rf"pairs\.jsonl:1: '{name}' is there twice"):
            read(file(tmp_path, row))


@pytest.mark.parametrize("kind", BAD)
def test_reading_refuses_a_bad_line_in_one_line_with_file_and_number(tmp_path: Path, kind: str):
    line, message = BAD[kind]
    path = file(tmp_path, json.dumps(GOOD), "", line)
    with pytest.raises(PairError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_pairs_has_no_findings(tmp_path: Path, content: bytes):
    (tmp_path / "none.jsonl").write_bytes(content)
    assert preflight(tmp_path / "none.jsonl").findings == Findings()


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(PairError, match=r"gone\.jsonl: No such file"):
        preflight(tmp_path / "gone.jsonl")


def test_the_census_counts_every_fault_and_goes_on(tmp_path: Path):
    swapped = {"prompt": "p", "chosen": "b", "rejected": "a"}
    long = {"prompt": "q", "chosen": "abc", "rejected": "b"}
    lines = [json.dumps(row) for row in (GOOD, long, GOOD, swapped)]
    path = file(tmp_path, *lines, *(line for line, _ in BAD.values()), BAD["empty"][0])
    checked = preflight(path)
    found = checked.findings
    assert (found.pairs, found.usable, found.dropped, len(checked.pairs)) == (11, 4, 7, 4)
    assert [getattr(found, kind) for kind in BAD] == [1, 1, 1, 1, 2, 1]
    assert (found.duplicated, found.contradictory) == (1, 1)
    assert (found.chosen_length, found.rejected_length, found.chosen_longer) == (1, 1, 1 / 4)
    places = [message.partition(": ")[0] for _, message in found.noted]
    assert places == [f"{path}:{line}" for line in range(3, 12)]  # every row that is not as it should be
    assert found.first["duplicated"] == f"{path}:3: the same pair as {path}:1"
    assert found.first["contradictory"] == f"{path}:4: the sides exchanged of {path}:1"
    assert found.first["not_json"].startswith(f"{path}:5: ")


def test_lengths_are_medians_which_one_long_row_does_not_move(tmp_path: Path):
    rows = [{"prompt": "p", "chosen": "a" * n, "rejected": "b" * m} for n, m in ((1, 2), (3, 4), (900, 6), (5, 8))]
    found = preflight(file(tmp_path, *map(json.dumps, rows), json.dumps(CHAT))).findings
    assert (found.chosen_length, found.rejected_length, found.chats) == (3, 4, 1)


def test_a_clean_file_has_no_findings(tmp_path: Path):
    found = preflight(file(tmp_path, json.dumps(GOOD))).findings
    assert found == Findings(pairs=1, usable=1, chosen_length=1.0, rejected_length=1.0)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_is_always_accounted_for_line_by_line(tmp_path: Path, data: st.DataObject):
    content = bytearray("\n".join(json.dumps(row) for row in (GOOD, CHAT, GOOD)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path / "mutated.jsonl"
    path.write_bytes(content)
    checked = preflight(path)
    found = checked.findings
    assert found.pairs == sum(bool(line.strip()) for line in bytes(content).split(b"\n"))
    assert found.usable + sum(getattr(found, kind) for kind in UNREADABLE) == found.pairs
    assert len(checked.pairs) == found.usable
    if found.usable == found.pairs:
        assert len(read(path)) == found.pairs
    else:
        with pytest.raises(PairError, match="mutated"):
            read(path)


def test_a_line_nested_a_hundred_thousand_deep_is_only_not_json(tmp_path: Path):
    assert preflight(file(tmp_path, "[" * 100_000)).findings.not_json == 1


def test_one_of_fifty_thousand_columns_that_is_there_twice_is_found_at_once(tmp_path: Path):
    """Reading all columns before each of them takes minutes."""
    columns = [*(f'"c{i}": 1' for i in range(50_000)), '"c49999": 2']
    began = time.monotonic()
    found = preflight(file(tmp_path, "{" + ", ".join(columns) + "}")).findings
    assert "'c49999' is there twice" in found.first["not_object"]
    assert time.monotonic() - began < 10
