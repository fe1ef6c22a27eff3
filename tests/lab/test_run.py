"""Run directories: written once, read back, resumed without a doubled line, refused when foreign."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lab.run import Run, RunError, next_free


def test_a_run_is_read_back(tmp_path: Path) -> None:
    made = Run.create(tmp_path / "a", "train", {"steps": 5}, seed=3)
    made.log(1, {"loss": torch.tensor([1.0, 2.0]), "odd": float("nan")})
    made.finish({"iqm": 1.5})
    found = Run.open(tmp_path / "a")
    assert (found.command, found.config, found.seed) == ("train", {"steps": 5}, 3)
    assert found.metrics() == [{"step": 1, "loss": [1.0, 2.0], "odd": None}]
    header = json.loads((tmp_path / "a" / "config.json").read_text())
    assert header["versions"]["torch"].startswith("2.")
    assert list((tmp_path / "a" / "tensorboard").iterdir())


def test_resuming_drops_the_lines_that_will_be_logged_again(tmp_path: Path) -> None:
    made = Run.create(tmp_path / "a", "train", {}, seed=0)
    for step in range(1, 6):
        made.log(step, {"loss": float(step)})
        if step == 3:
            made.save(step, {"w": torch.ones(1)})
    with (tmp_path / "a" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # the process died here
    found, before = Run.open(tmp_path / "a"), (tmp_path / "a" / "metrics.jsonl").read_bytes()
    restored = found.restore()
    assert restored is not None
    assert restored.step == 3
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == before  # whoever restores may yet refuse
    found.rewind(restored.step)
    assert [line["step"] for line in found.metrics()] == [1, 2, 3]


def test_a_taken_directory_is_refused(tmp_path: Path) -> None:
    Run.create(tmp_path / "a", "train", {}, seed=0)
    with pytest.raises(RunError, match="a run stands here already"):
        Run.create(tmp_path / "a", "train", {}, seed=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 2}', "run format 2; this version of quincunx reads format 1"),
        ("{", "not readable as JSON"),
        ("[]", "run format None"),
        ('{"format": 1, "command": "train"}', "config, seed, device, inputs, threads missing"),
    ],
)
def test_a_foreign_directory_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=said):
        Run.open(tmp_path)
    with pytest.raises(RunError, match="no run here"):
        Run.open(tmp_path / "elsewhere")


def test_numbers_are_given_in_order(tmp_path: Path) -> None:
    assert next_free(tmp_path, "x").name == "x-1"
    (tmp_path / "x-1").mkdir()
    assert next_free(tmp_path, "x").name == "x-2"
