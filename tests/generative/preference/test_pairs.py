"""Preference files: what is refused, with which line, and what the census counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generative.preference.pairs import Findings, Pair, PairError, check, read, write

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


def test_what_is_written_is_read_again(tmp_path: Path):
    pairs = [Pair("", "a", "b"), Pair("line\nbreak \u2028 ü", 'quo"te', "\\")]
    write(tmp_path / "pairs.jsonl", pairs)
    assert read(tmp_path / "pairs.jsonl") == pairs
    assert len((tmp_path / "pairs.jsonl").read_bytes().splitlines()) == 2


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
def test_a_file_without_pairs_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "none.jsonl").write_bytes(content)
    with pytest.raises(PairError, match=r"none\.jsonl: holds no pair"):
        read(tmp_path / "none.jsonl")


@pytest.mark.parametrize("use", [read, check])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, use):
    with pytest.raises(PairError, match=r"gone\.jsonl: No such file"):
        use(tmp_path / "gone.jsonl")


def test_the_census_counts_every_fault_and_goes_on(tmp_path: Path):
    swapped = {"prompt": "p", "chosen": "b", "rejected": "a"}
    long = {"prompt": "q", "chosen": "abc", "rejected": "b"}
    rows = [json.dumps(row) for row in (GOOD, long, GOOD, swapped)]
    path = file(tmp_path, *rows, *(line for line, _ in BAD.values()), BAD["empty"][0])
    found = check(path)
    assert (found.pairs, found.usable) == (11, 4)
    assert [getattr(found, kind) for kind in BAD] == [1, 1, 1, 1, 2, 1]
    assert (found.duplicated, found.contradictory) == (1, 1)
    assert (found.chosen_length, found.rejected_length, found.chosen_longer) == (6 / 4, 4 / 4, 1 / 4)
    assert found.first["duplicated"] == f"{path}:3: duplicated an earlier line"
    assert found.first["contradictory"].startswith(f"{path}:4: ")
    assert found.first["not_json"].startswith(f"{path}:5: ")


def test_a_clean_file_has_no_findings(tmp_path: Path):
    found = check(file(tmp_path, json.dumps(GOOD)))
    assert found == Findings(pairs=1, usable=1, chosen_length=1.0, rejected_length=1.0)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_file_is_always_accounted_for_line_by_line(tmp_path: Path, data: st.DataObject):
    content = bytearray("\n".join(json.dumps(GOOD) for _ in range(3)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path / "mutated.jsonl"
    path.write_bytes(content)
    found = check(path)
    assert found.pairs == sum(bool(line.strip()) for line in bytes(content).split(b"\n"))
    assert found.usable + sum(getattr(found, kind) for kind in BAD) == found.pairs
    if 0 < found.usable == found.pairs:
        assert len(read(path)) == found.pairs
    else:
        with pytest.raises(PairError, match="mutated"):
            read(path)


def test_a_line_nested_a_hundred_thousand_deep_is_only_not_json(tmp_path: Path):
    assert check(file(tmp_path, "[" * 100_000)).not_json == 1
