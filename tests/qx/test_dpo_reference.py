"""`qx dpo` and its reference: asked in the policy's precision, and not kept where nothing can be written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

from qx.main import main
from tests.qx import test_dpo_pretrained as pretrained

STEPS = ["--steps", "2", "--learning-rate", "1e-12", "--device", "cpu", "--seed", "1"]
MODEL = ["--width", "16", "--depth", "1", "--heads", "2"]


@pytest.fixture
def fresh() -> Iterator[None]:
    """A program has one accelerator, with one precision: here another one, and afterwards none."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def words(kind: str, folder: Path) -> list[str]:
    if kind != "lab":
        model, pairs = pretrained.folder(folder / "model", kind), pretrained.pairs(folder / "pairs.jsonl")
        return ["dpo", str(pairs), "--model", str(model), "--held-out", "0.25", "--batch-size", "12", *STEPS]
    shown = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(5) for b in range(5)]
    preferred = [{**row, "chosen": row["completion"], "rejected": f"{row['completion']}1"} for row in shown]
    for name, rows in (("shown.jsonl", shown), ("pairs.jsonl", preferred)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    sft = ["sft", str(folder / "shown.jsonl"), *MODEL, "--batch-size", "8", *STEPS, "--out", str(folder / "sft")]
    assert main(sft) == 0
    model_ = ["--model", str(folder / "sft"), "--anchor", "0"]
    return ["dpo", str(folder / "pairs.jsonl"), *model_, "--batch-size", "25", *STEPS]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("kind", ["lab", "llama"])
def test_under_an_accelerator_that_casts_the_policy_begins_where_its_reference_is(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All pairs in one batch: what rounds alike cancels. It learns next to nothing, so every loss is ln 2, also of the
    pairs held out; asked in float32 the reference would be a thousand times as far from that.
    """
    asked = words(kind, tmp_path)
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("QUINCUNX_CACHE", str(tmp_path / "cache"))
    assert main([*asked, "--out", str(tmp_path / "cast")]) == 0
    losses = [value for line in metrics(tmp_path / "cast") for name, value in line.items() if name.endswith("loss")]
    assert len(losses) == (2 if kind == "lab" else 4)
    assert losses == pytest.approx([math.log(2)] * len(losses), abs=1e-6)
    kept = {path.name for path in (tmp_path / "cache" / "reference").iterdir()}
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    assert main([*asked, "--precision", "bf16", "--out", str(tmp_path / "config")]) == 0
    assert {path.name for path in (tmp_path / "cache" / "reference").iterdir()} == kept  # the same is the same
    assert main([*asked, "--out", str(tmp_path / "plain")]) == 0
    assert len(list((tmp_path / "cache" / "reference").iterdir())) == 2 * len(kept)


@pytest.mark.parametrize("kind", ["lab", "llama"])
def test_a_cache_that_cannot_be_written_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = words(kind, tmp_path)
    capsys.readouterr()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("QUINCUNX_CACHE", str(tmp_path / "file" / "below"))
    assert main([*asked, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    line = (
        f"{tmp_path / 'file' / 'below' / 'reference'}: cannot be written (Not a directory), so what the reference says"
    )
    assert said.count(line) == 1
    assert "Warning" not in said
    assert "Traceback" not in said
