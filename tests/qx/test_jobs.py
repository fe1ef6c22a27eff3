"""Ctrl-C leaves a checkpoint, and schedules follow the length of the run that is asked for."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lab import checkpoint, tree
from qx.agents import TrainJob
from qx.main import main

LEARN = ["train", "q-learning", "zhao-5x5", "--steps", "3000", "--replicas", "2", "--save-every", "1000"]
QUICK = ["--replicas", "1", "--episodes", "1"]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """An interrupt is heard, also where the tests run in the background of a shell, which makes it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def agent_of(run: Path) -> dict[str, Any]:
    """The agent's config, as the run keeps it."""
    found: dict[str, Any] = json.loads((run / "config.json").read_text())["config"]["options"]["agent"]
    return found


def final(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor and number of the newest checkpoint, by path."""
    tensors, numbers = tree.split(checkpoint.load(run / "checkpoint").state)
    return {**tensors, "numbers": torch.tensor(list(repr(numbers).encode()))}


def test_an_interrupt_waits_for_the_loop_to_rest_and_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main([*LEARN, "--out", str(whole)]) == 0
    watch, seen = TrainJob.watch, []

    def interrupted(job: TrainJob) -> Any:
        seen.append(job.trainer.step)
        if job.trainer.step == 1100:
            signal.raise_signal(signal.SIGINT)
        return watch(job)

    monkeypatch.setattr(TrainJob, "watch", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert main([*LEARN, "--out", str(cut)]) == 1
    assert signal.getsignal(signal.SIGINT) is before
    assert "interrupted" in capsys.readouterr().err
    assert checkpoint.steps(cut / "checkpoint") == [1100]
    assert max(seen) == 1100
    assert not (cut / "result.json").exists()
    monkeypatch.undo()
    assert main(["resume", str(cut)]) == 0
    expected, found = final(whole), final(cut)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()


def test_a_second_interrupt_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"

    def impatient(job: TrainJob) -> Any:
        if job.trainer.step:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return {}

    monkeypatch.setattr(TrainJob, "watch", impatient)
    assert main([*LEARN, "--out", str(run)]) == 1
    assert not checkpoint.steps(run / "checkpoint")


def test_schedules_keep_their_share_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, own, tuned = tmp_path / "short", tmp_path / "own", tmp_path / "tuned"
    assert main(["train", "sarsa", "cliff", "--steps", "5000", *QUICK, "--out", str(short)]) == 0
    assert agent_of(short)["exploration_steps"] == 2000
    assert "exploration over the first 2,000 of 5,000 steps" in capsys.readouterr().err
    asked = ["--steps", "1000", "--exploration-steps", "20000"]
    assert main(["train", "q-learning", "cliff", *asked, *QUICK, "--out", str(own)]) == 0
    said = capsys.readouterr()
    assert agent_of(own)["exploration_steps"] == 20000
    assert "exploration" not in said.err
    assert "exploring was not over: epsilon is still 0.95" in said.out  # 1 - 0.9 x 1000 / 20000
    assert main(["train", "n-step-sarsa", "zhao-5x5", "--steps", "15000", *QUICK, "--out", str(tuned)]) == 0
    assert agent_of(tuned)["exploration_steps"] == 20000  # tuned for just so many steps


def test_who_learns_from_whatever_is_done_explores_as_long_as_ever(tmp_path: Path) -> None:
    assert main(["train", "q-learning", "cliff", "--steps", "1000", *QUICK, "--out", str(tmp_path / "run")]) == 0
    assert agent_of(tmp_path / "run")["exploration_steps"] == 20000


def test_policies_that_never_arrive_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["train", "q-learning", "cliff", "--steps", "200", "--replicas", "2", "--episodes", "1", "--json"]
    assert main([*args, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    found = json.loads(said.splitlines()[-1])
    assert found["never_arrive"] == 2
    assert found["returns"] == [None, None]
    assert "iqm  minus infinity" in said
