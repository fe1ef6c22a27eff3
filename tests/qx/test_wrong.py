"""A wrong request: one clear line on standard error, exit code 2, nothing written, no traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from qx.main import main

GRID = 'source = "a test"\nmap = """\n{map}\n"""\n'
GOOD_PAIR = {"prompt": "a", "chosen": "b", "rejected": "c"}
SMALL = ["--steps", "4", "--batch-size", "4"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, on a machine without CUDA."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
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
    before = contents(here)
    capsys.readouterr()
    assert main(args) == 2
    said = capsys.readouterr()
    assert contents(here) == before
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("qx: ")
    assert "Traceback" not in said.err + said.out
    assert said.out == ""
    return lines[0]


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every path below the folder, and what its files hold."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


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
        (["train", "dqn", "zhao-5x5", "--report-every", "0"], ["--report-every 0", "at least 1"]),
        (["train", "dqn", "zhao-5x5", "--capacity", "4"], ["--capacity 4", "8 worlds"]),
        (["train", "drqn", "zhao-5x5", "--capacity", "160"], ["--capacity 160", "20 for each of 8 worlds"]),
        (["train", "noisy-dqn", "zhao-5x5", "--hidden"], ["noisy", "--hidden 64 64"]),
        (["train", "ppo", "zhao-5x5", "--rollout", "2", "--minibatches", "17"], ["--minibatches 17", "1 to 16"]),
        (["train", "pqn", "zhao-5x5", "--minibatches", "0"], ["--minibatches 0", "1"]),
        (["train", "c51", "Acrobot-v1"], ["Acrobot-v1", "no table", "low and high"]),
        (["train", "dqn", "zhao-5x5", "--target-every", "0"], ["--target-every 0", "at least 1"]),
        (["train", "dqn", "zhao-5x5", "--hidden", "0"], ["--hidden 0", "at least 1"]),
        (["train", "dqn", "zhao-5x5", "--learning-rate", "-1"], ["--learning-rate -1", "more than 0"]),
        (["train", "q-learning", "zhao-5x5", "--epsilon", "5"], ["--epsilon 5", "at most 1"]),
        (["train", "q-learning", "zhao-5x5", "--device", "cuda"], ["--device cuda"]),
        (["diffuse", "digits", "--ema", "2"], ["--ema 2", "at most 0.28"]),
        (["diffuse", "digits", "--width", "10"], ["model", "10"]),
        (["diffuse", "digits", "--backbone", "mlp", "--prompts"], ["model", "captions"]),
        (["diffuse", "scenes", "--backbone", "mlp"], ["model", "reads no prompts"]),
        (["diffuse", "digits", "--schedule", "linear-zero-snr", "--prediction", "eps"], ["model", "determines no x0"]),
        (["sft", "mazes", "--examples", "9", "--width", "30", "--heads", "4"], ["model", "30"]),
        (
            ["sft", "mazes", "--examples", "9", "--positions", "learned", "--length", "5"],
            ["--length 5", "longest"],
        ),
        (["train", "dqn", "zhao-5x5", "--observation", "plane"], ["plane", "planes"]),
        (["solve", "zhao-5x5", "--gamma", "1.5"], ["--gamma 1.5", "at most 1"]),
        (["solve", "zhao-5x5", "--set", "reward.forbiden=-1"], ["forbiden", "forbidden"]),
        (["solve", "zhao-5x5", "--set", "reward"], ["--set reward", "KEY=VALUE"]),
        (["diffuse", "digit"], ["digit: no such file, folder or embedded data set", "did you mean 'digits'?"]),
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
    (here / "pairs.jsonl").write_text(f"\n\n{row}\n{json.dumps(GOOD_PAIR)}\n")
    for command in (["dpo", "pairs.jsonl", "--model", str(runs / "sft")], ["pairs", "check", "pairs.jsonl"]):
        line = refused([*command, "--strict"], here, capsys)
        assert all(word in line for word in ["pairs.jsonl:3:", *words]), line


def test_pairs_of_which_none_can_teach_this_model(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "pairs.jsonl").write_text(f"{json.dumps(GOOD_PAIR)}\n[1]\n")
    line = refused(["dpo", "pairs.jsonl", "--model", str(runs / "sft")], here, capsys)
    assert "pairs.jsonl: none of its 2 pairs can teach: 1 not object, 1 not tokenised" in line
    assert "pairs.jsonl:1: character 'a' at 0 of 'a' is unknown" in line


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


@pytest.mark.parametrize(
    ("kind", "path", "other"),
    [
        ("train", ("options", "replicas"), 3),
        ("diffuse", ("model", "width"), 32),
        ("diffuse", ("parts", "latent"), True),
        ("diffuse", ("model", "backbone"), "mlp"),
        ("sft", ("model", "width"), 32),
    ],
)
def test_a_checkpoint_of_another_model(
    kind: str,
    path: tuple[str, str],
    other: object,
    runs: Path,
    here: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As where a later version makes something else of the same configuration. What was logged since stays."""
    copy = tmp_path_factory.mktemp("other") / kind
    _copy(runs / kind, copy)
    header = json.loads((copy / "config.json").read_text())
    assert header["config"][path[0]][path[1]] != other
    header["config"][path[0]][path[1]] = other
    (copy / "config.json").write_text(json.dumps(header))
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 100000}\n')
    for verb in ("resume", "eval"):
        line = refused([verb, str(copy)], copy, capsys)
        assert "does not fit what this version makes of its config.json (" in line
        assert len(line) < 700


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
    (here / "empty").mkdir()
    (here / "adapter").mkdir()
    (here / "adapter" / "adapter_config.json").write_text("{}")
    for name, said in (("nowhere", "no such folder"), ("empty", "no model here"), ("adapter", "adapters alone")):
        for command in ("dpo", "reward", "sft"):
            assert f"--model {name}: {said}" in refused([command, "pairs.jsonl", "--model", name], here, capsys)


def test_a_damaged_model_is_refused(
    runs: Path, here: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path_factory.mktemp("damaged") / "diffuse"
    _copy(runs / "diffuse", copy)
    weights = copy / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "model.safetensors" in refused(["sample", str(copy), "--out", str(here / "s")], here, capsys)


def test_an_out_that_is_a_file(runs: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "taken").write_text("mine")
    for args in (["train", "dqn", "zhao-5x5"], ["solve", "zhao-5x5"], ["sample", str(runs / "diffuse")]):
        assert "taken is a file" in refused([*args, "--out", "taken"], here, capsys)
        assert "taken is a file" in refused([*args, "--out", "taken/deeper"], here, capsys)


def test_a_wrong_demo_leaves_the_earlier_one_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "d").mkdir()
    (here / "d" / "demo.json").write_text('{"not": "ours"}')
    assert "not an earlier demo" in refused(["demo", "--out", "d"], here, capsys)
    (here / "d" / "demo.json").write_text('{"quincunx": "demo"}')
    assert "--device cuda" in refused(["demo", "--out", "d", "--device", "cuda"], here, capsys)


def test_a_run_does_not_go_on_with_other_inputs(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each kind of file that a run reads: a world, demonstrations, pairs, a model."""
    (here / "w.toml").write_text(GRID.format(map="S..\n.#.\n..G"))
    (here / "d.jsonl").write_text(json.dumps({"prompt": "ab", "completion": "ba"}) + "\n")
    (here / "p.jsonl").write_text(json.dumps({"prompt": "S..G\n", "chosen": "RRR", "rejected": "RR"}) + "\n")
    _copy(runs / "sft", here / "m")
    dpo = ["dpo", "p.jsonl", "--model", "m", "--steps", "2", "--batch-size", "1"]
    made = {
        "w.toml": ["train", "q-learning", "w.toml", "--steps", "200", "--out", "tw"],
        "d.jsonl": ["sft", "d.jsonl", "--steps", "2", "--width", "16", "--depth", "1", "--heads", "2", "--out", "ts"],
        "p.jsonl": [*dpo, "--out", "tp"],
        "m/model/model.safetensors": [*dpo, "--out", "tm"],
    }
    for args in made.values():
        assert main(args) == 0
    monkeypatch.chdir(runs)  # a run goes on from any directory
    for args in made.values():
        assert main(["resume", str(here / args[-1])]) == 0
    for name, args in made.items():
        before = (here / name).read_bytes()
        (here / name).write_bytes(before + b" ")
        assert "has changed since the run" in refused(["resume", str(here / args[-1])], here, capsys)
        (here / name).unlink()
        line = refused(["resume", str(here / args[-1])], here, capsys)
        assert "is gone" in line or "has changed" in line
        (here / name).write_bytes(before)


def test_resume_takes_device_threads_and_seed_from_the_run(
    runs: Path, here: Path, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path_factory.mktemp("seed") / "train"
    _copy(runs / "train", copy)
    header = json.loads((copy / "config.json").read_text())
    assert (header["device"], header["seed"], header["threads"]) == ("cpu", 0, torch.get_num_threads())
    assert "has its own seed, 0" in refused(["resume", str(copy), "--seed", "7"], copy, capsys)
    assert "in its own directory" in refused(["resume", str(copy), "--out", str(here / "x")], copy, capsys)
    (copy / "config.json").write_text(json.dumps({**header, "config": {}}))
    assert "does not fit this version" in refused(["resume", str(copy)], copy, capsys)
    (copy / "config.json").write_text(json.dumps({**header, "config": None}))
    assert "config missing" in refused(["resume", str(copy)], copy, capsys)


def test_work_that_fails_is_one_line_and_exit_code_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", "dqn", "zhao-5x5", "--learning-rate", "1e30", "--steps", "3000", "--replicas", "1", "--out", "r"]
    assert main(args) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("qx: ")]
    assert len(lines) == 1
    assert "is not finite at step" in lines[0]
    assert not (here / "r" / "result.json").exists()


def test_a_finished_run_resumes_to_the_same_result(
    runs: Path, here: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = tmp_path_factory.mktemp("again") / "train"
    _copy(runs / "train", copy)
    found = [json.loads((copy / "result.json").read_text())]
    assert main(["resume", str(copy)]) == 0
    found.append(json.loads((copy / "result.json").read_text()))
    first, second = ({k: v for k, v in one.items() if k not in ("seconds", "run")} for one in found)
    assert first == second


def test_an_undiscounted_agent_is_measured_under_the_time_limit(here: Path) -> None:
    args = ["train", "q-learning", "zhao-5x5", "--gamma", "1", "--steps", "200", "--replicas", "2", "--out", "r"]
    assert main(args) == 0
    assert (here / "r" / "report.png").exists()


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
