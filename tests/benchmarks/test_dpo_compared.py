"""What `qx bench dpo` compares and says: ratios are of medians of all rounds, wrong numbers end it, found ones stay."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import dpo, dpo_ours
from benchmarks.dpo import DEFAULT, HALF, OURS, PATCHED, TINY, Measured
from benchmarks.dpo_ours import Epoch, Ours
from benchmarks.dpo_peer import Theirs
from qx.main import main

TWICE = "trl, bf16, checkpointing"


def measured(rate: float, peak: float, loss: float = 0.7) -> Measured:
    return Measured(rate, peak, Epoch(0.0, 1.0, [loss], -20.0))


def rounds() -> dict[str, list[Measured]]:
    """Three rounds of those that count. First epochs, single epochs and largest ones would each choose another way."""
    one = {name: [measured(2.0, 50.0)] for name, how in dpo.settings().items() if isinstance(how, Theirs)}
    one["trl, bf16, grouped"] = [measured(3.5, 50.0)]
    one[TWICE] = [measured(1.0, 30.0)]
    one[PATCHED] = [measured(rate, 20.0) for rate in (6.0, 5.0, 8.0)]
    one[DEFAULT] = [measured(rate, 80.0) for rate in (1.0, 2.0, 9.0)]
    one["trl, float32"] = [measured(rate, 40.0) for rate in (3.0, 2.0, 4.0)]
    mine = {OURS: [measured(rate, 10.0) for rate in (10.0, 8.0, 20.0)]}
    return {**mine, HALF: [measured(rate, 8.0) for rate in (9.0, 12.0, 15.0)], **one}


def test_ratios_are_of_medians_default_to_default_and_best_to_best() -> None:
    told = dpo.compared(rounds())
    assert (told["ours_best"], told["peer_best"], told["peer_least"]) == (HALF, "trl, float32", TWICE)
    assert told["speed_ratio"] == pytest.approx(10 / 2)
    assert told["best_speed_ratio"] == pytest.approx(12 / 3)
    assert told["memory_ratio"] == pytest.approx(10 / 80)
    assert told["best_memory_ratio"] == pytest.approx(8 / 30)
    assert (told["patched_speed_ratio"], told["patched_memory_ratio"]) == pytest.approx((12 / 6, 8 / 20))
    assert told["speed_ratio_spread"] == pytest.approx([20 / 9, 10 / 1])


def test_ratios_of_what_was_not_measured_are_left_out() -> None:
    without = {name: [replace(one, peak=None) for one in each] for name, each in rounds().items() if name != PATCHED}
    assert not {key for key in dpo.compared(without) if "memory" in key or "patched" in key}


def test_a_way_that_computes_something_else_is_seen() -> None:
    found = rounds()
    assert dpo.apart(found, "float32") == 0.0
    found["trl, float32"][0] = measured(3.0, 40.0, loss=0.707)
    assert dpo.apart(found, "float32") == pytest.approx(0.01, rel=0.02)
    assert dpo.apart(found, "bf16") == 0.0
    found["trl, float32"][0] = measured(3.0, 40.0)
    found[PATCHED][0] = measured(6.0, 20.0, loss=0.714)
    assert dpo.apart(found, "float32") == pytest.approx(0.02, rel=0.02)
    assert dpo.apart(found, "bf16") == 0.0


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Every way takes a second a pair, but for those named; "loss" is that of ours in float32."""
    rates: dict[str, float] = {}

    def run(size: Any, how: Any, device: str) -> Measured:
        name = next((name for name, each in dpo.settings().items() if each == how), "other")
        name = PATCHED if isinstance(how, Theirs) and how.compact else name
        bytes_ = {PATCHED: 2.0**29, TWICE: 0.5 * 2.0**30}.get(name, 2.0**30 if isinstance(how, Theirs) else 2.0**28)
        return measured(rates.get(name, 1.0), bytes_, rates.get("loss", 0.7) if name == OURS else 0.7)

    monkeypatch.setattr(dpo, "run", run)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    return rates


def test_the_command_prints_a_table_a_picture_and_json(
    invented: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invented.update({OURS: 6.0, "trl, bf16, grouped": 2.0, PATCHED: 4.0})
    words = ["bench", "dpo", "--rounds", "2", "--device", "cpu", "--out", str(tmp_path)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "1.50 times trl, bf16, grouped, patched" in said
    assert f"memory 0.500 of {TWICE}" in said
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["speed_ratio"], found["best_speed_ratio"]) == (6.0, 3.0)
    assert (found["memory_ratio"], found["best_memory_ratio"]) == (0.25, 0.5)
    assert (found["patched_speed_ratio"], found["patched_memory_ratio"]) == (1.5, 0.5)
    assert set(found["vocabularies"]) == {"32000", "128000"}
    assert set(found["ablation"]) == set(dpo_ours.without(Ours()))
    assert found["vocabularies"]["32000"]["peer_best"] == "trl, bf16, grouped"
    assert (tmp_path / "report.png").read_bytes()[:4] == b"\x89PNG"


def test_the_best_of_the_peer_is_one_that_trained_in_all_rounds(
    invented: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fastest first epoch is chosen to go on; it becomes slower than a way that did not."""
    asked, going = dpo.run, iter([3.05, 2.9, 2.95])

    def run(size: Any, how: Any, device: str) -> Measured:
        found = asked(size, how, device)
        return replace(found, pairs_per_second=next(going)) if how == dpo.settings()["trl, float32"] else found

    monkeypatch.setattr(dpo, "run", run)
    invented.update({"trl, float32, grouped": 3.0, OURS: 5.9, PATCHED: 5.0})
    *turns, (_, found) = dpo.measure(TINY, "cpu", 3)
    assert len(turns) == dpo.epochs("cpu", 3) == sum(len(each) for each in found.values())
    told = dpo.compared(found)
    assert (told["peer_best"], told["best_speed_ratio"]) == ("trl, float32", pytest.approx(5.9 / 2.95))


def test_on_cuda_nothing_is_patched(invented: dict[str, float]) -> None:
    *turns, (_, found) = dpo.measure(TINY, "cuda", 2)
    assert len(turns) == dpo.epochs("cuda", 2)
    assert set(found) == set(dpo.settings())


def test_what_was_measured_before_an_error_is_kept(
    invented: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["bench", "dpo", "--rounds", "1", "--device", "cpu", "--vocabularies", "64", "--out", str(tmp_path)]
    ways = {*dpo.settings(), PATCHED}

    def kept() -> set[str]:
        return set(json.loads((tmp_path / "result.json").read_text())["vocabularies"]["64"]["all"])

    invented["loss"] = 0.8
    assert main(words) == 1
    assert "in float32 the two differ by 0.14" in capsys.readouterr().err
    assert kept() == ways
    asked = dpo.run

    def run(size: Any, how: Any, device: str) -> Measured:
        if isinstance(how, Theirs) and how.compact:
            raise RuntimeError("training: no memory")
        return asked(size, how, device)

    monkeypatch.setattr(dpo, "run", run)
    assert main(words) == 1
    assert "training: no memory" in capsys.readouterr().err
    assert kept() == ways - {PATCHED}


def test_sizes_that_there_are_not_and_a_missing_peer_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words, said in (
        (["--pairs", "10", "--batch", "4"], "--pairs 10: expected a multiple of the batch of 4"),
        (["--prompt", "9", "3"], "--prompt 9 3: expected the least length"),
        (["--heads", "3"], "--heads, --hidden, --batch: expected at least 1, and heads"),
        (["--lora-rank", "-1"], "--lora-rank -1: expected at least 0"),
        (["--vocabulary", "64"], "--vocabulary"),
        (["--rounds", "0"], "at least 1"),
    ):
        assert main(["bench", "dpo", *words]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["bench", "dpo"]) == 1
    assert "pip install 'quincunx[bench]'" in capsys.readouterr().err
