"""A wrong request: one clear line on standard error, exit code 2, nothing written, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qx.main import main

GRID = 'source = "a test"\nmap = """\n{map}\n"""\n'
GOOD_PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
SMALL = ["--steps", "4", "--batch-size", "4"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["train", "q-learning", "zhao-5x5", "--steps", "200", "--out", str(folder / "train")]) == 0
    assert main(["diffuse", "digits", *SMALL, "--width", "16", "--out", str(folder / "diffuse")]) == 0
    sft = ["sft", "mazes", *SMALL, "--examples", "40", "--width", "16", "--depth", "1", "--heads", "2"]
    assert main([*sft, "--out", str(folder / "sft")]) == 0
    return folder


def refused(args: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a wrong request is answered with, after checking that nothing was written."""
    before = sorted(here.rglob("*"))
    capsys.readouterr()
    assert main(args) == 2
    said = capsys.readouterr()
    assert sorted(here.rglob("*")) == before
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("qx: ")
    assert "Traceback" not in said.err + said.out
    assert said.out == ""
    return lines[0]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["tran"], ["unknown command 'tran'", "'train'"]),
        (["train", "dqm", "zhao-5x5"], ["unknown agent 'dqm'", "'dqn'"]),
        (["train", "dqn", "zhao-5x6"], ["zhao-5x6", "zhao-5x5"]),
        (["solve", "four-room"], ["four-room", "four-rooms"]),
        (["solve", "CartPole-v1"], ["CartPole-v1", "dynamics are not known"]),
        (["solve", "FrozenLake-v9"], ["FrozenLake-v9"]),
        (["train", "q-learning", "CartPole-v1"], ["table", "dqn"]),
        (["train", "dqn"], ["expected a world next"]),
        (["train", "dqn", "zhao-5x5", "--step", "3"], ["--step", "--steps"]),
        (["train", "dqn", "zhao-5x5", "--steps", "many"], ["--steps", "many"]),
        (["train", "dqn", "zhao-5x5", "--replicas", "0"], ["--replicas 0", "at least 1"]),
        (["train", "dqn", "zhao-5x5", "--steps", "0"], ["--steps 0", "at least 1"]),
        (["train", "dqn", "zhao-5x5", "--observation", "plane"], ["plane", "planes"]),
        (["solve", "zhao-5x5", "--gamma", "1.5"], ["--gamma 1.5", "from 0 to 1"]),
        (["solve", "zhao-5x5", "--set", "reward.forbiden=-1"], ["forbiden", "forbidden"]),
        (["solve", "zhao-5x5", "--set", "reward"], ["--set reward", "KEY=VALUE"]),
        (["diffuse", "digit"], ["unknown data set 'digit'", "'digits'"]),
        (["sft", "nowhere.jsonl"], ["nowhere.jsonl", "mazes"]),
        (["pairs", "check", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["sample", "nowhere"], ["nowhere"]),
        (["resume", "nowhere"], ["nowhere", "no run here"]),
        (["eval", "nowhere"], ["nowhere", "no run here"]),
    ],
    ids=lambda value: "-".join(value)[:40] if isinstance(value, list) else None,
)
def test_a_wrong_word(args: list[str], words: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(args, here, capsys)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GRID.format(map="S..\n.#\n..G"), [":4:", "ragged"]),
        (GRID.format(map="...\n.#.\n..G"), ["start"]),
        (GRID.format(map="S.?\n..G"), [":3:3", "'?'"]),
        ('map = "S.G\n', ["TOML"]),
    ],
    ids=["ragged", "no start", "unknown glyph", "no TOML"],
)
def test_a_wrong_map_is_named_with_file_and_line(
    text: str, words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "mine.toml").write_text(text)
    line = refused(["solve", "mine.toml"], here, capsys)
    assert all(word in line for word in ["mine.toml:", *words]), line


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"prompt": "a", "chosen": ', ["not JSON"]),
        (json.dumps({**GOOD_PAIR, "chosen": ""}), ["chosen side is empty"]),
        (json.dumps({**GOOD_PAIR, "rejected": "  "}), ["rejected side is empty"]),
        (json.dumps({**GOOD_PAIR, "rejected": "b"}), ["same text 'b'"]),
        (json.dumps({"prompt": "a", "chosen": "b", "reject": "c"}), ["'rejected' is missing", "'reject'"]),
        ("[1, 2]", ["[1, 2]", "object"]),
    ],
    ids=["no JSON", "empty chosen", "empty rejected", "identical", "missing", "no object"],
)
def test_a_wrong_pair_is_named_with_file_and_line(
    row: str, words: list[str], runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pairs.jsonl").write_text(f"{json.dumps(GOOD_PAIR)}\n\n{row}\n")
    line = refused(["dpo", "pairs.jsonl", "--model", str(runs / "sft")], here, capsys)
    assert all(word in line for word in ["pairs.jsonl:3:", *words]), line


@pytest.mark.parametrize("kind", ["train", "diffuse", "sft"])
def test_a_checkpoint_cut_in_half(
    kind: str, runs: Path, here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path_factory.mktemp("cut") / kind
    _copy(runs / kind, copy)
    [file] = (copy / "checkpoint").glob("*/tensors.safetensors")
    whole = file.read_bytes()
    for verb in ("resume", "eval"):
        file.write_bytes(whole[: len(whole) // 2])
        line = refused([verb, str(copy)], copy, capsys)
        assert "tensors.safetensors" in line
        assert f"{len(whole) // 2} bytes where {len(whole)} were written" in line
    state = file.with_name("state.json")
    file.write_bytes(whole)
    state.write_text(state.read_text()[:100])
    assert "state.json: not readable" in refused(["resume", str(copy)], copy, capsys)


@pytest.mark.parametrize("kind", ["train", "diffuse", "sft"])
def test_a_run_of_another_format(
    kind: str, runs: Path, here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path_factory.mktemp("foreign") / kind
    _copy(runs / kind, copy)
    header = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**header, "format": 99}))
    for verb in ("resume", "eval"):
        line = refused([verb, str(copy)], copy, capsys)
        assert "run format 99" in line
        assert "reads format 1" in line


def test_a_directory_that_holds_a_run_is_not_written_over(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["train", "q-learning", "zhao-5x5", "--out", str(runs / "train")], runs, capsys)
    assert "a run stands here already" in line
    assert "qx resume" in line


def test_a_model_that_is_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "pairs.jsonl").write_text(json.dumps(GOOD_PAIR) + "\n")
    assert "model.json" in refused(["dpo", "pairs.jsonl", "--model", "nowhere"], here, capsys)


def test_a_damaged_model_is_refused(
    runs: Path, here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path_factory.mktemp("damaged") / "diffuse"
    _copy(runs / "diffuse", copy)
    weights = copy / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors" in refused(["sample", str(copy), "--out", str(here / "s")], here, capsys)


def test_the_last_line_of_output_is_json(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "zhao-5x5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [round(value, 1) for value in found["values"][:5]] == [5.8, 5.6, 6.2, 6.5, 5.8]
    assert len(found["values"]) == 25
    assert found["gamma"] == 0.9
    assert found["policy"][17] == "stay"


def _copy(source: Path, target: Path) -> None:
    import shutil

    shutil.copytree(source, target)
