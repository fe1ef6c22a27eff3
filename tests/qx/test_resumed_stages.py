"""`qx dpo`, `qx sft` and `qx reward` on folders of transformers go on from the middle, and end bit for bit the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lab import checkpoint, tree
from lab.run import Run
from qx.jobs import carry_on
from qx.main import main
from qx.runs import reopen
from qx.usage import Common
from tests.qx.test_dpo_pretrained import folder, pairs
from tests.qx.test_first_stages import demonstrations

SMALL = ["--steps", "5", "--batch-size", "5", "--learning-rate", "1e-2", "--held-out", "0.25", "--weight-decay", "0.1"]
WAYS = {
    "dpo": ["dpo", "--samples-every", "2"],
    "dpo, adapters": ["dpo", "--lora-rank", "2"],
    "dpo, adapters, averaged": ["dpo", "--lora-rank", "2", "--ema", "0.2"],
    "dpo, averaged, in parts": ["dpo", "--ema", "0.2", "--accumulate", "5"],
    "sft": ["sft"],
    "sft, averaged": ["sft", "--ema", "0.2"],
    "reward": ["reward"],
    "reward, averaged": ["reward", "--ema", "0.2"],
}


def final(run: Path) -> dict[str, Tensor]:
    """Every tensor and number of the newest checkpoint, by path."""
    found = checkpoint.load(run / "checkpoint")
    tensors, numbers = tree.split(found.state)
    return {**tensors, "numbers": torch.tensor(list(repr((found.step, numbers)).encode()))}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_that_was_cut_in_the_middle_ends_the_same(way: str, tmp_path: Path) -> None:
    """Two updates, a checkpoint, and all else begun anew from what the run keeps."""
    command, *more = WAYS[way]
    model, whole, cut = folder(tmp_path / "model", "gpt2"), tmp_path / "whole", tmp_path / "cut"
    file = (demonstrations if command == "sft" else pairs)(tmp_path / "rows.jsonl")
    words = [str(file), "--model", str(model), *SMALL, *more, "--seed", "3", "--device", "cpu"]
    assert main([command, *words, "--save-every", "1000", "--out", str(whole)]) == 0
    assert checkpoint.steps(whole / "checkpoint") == [5]
    cut.mkdir()
    shutil.copy(whole / "config.json", cut)
    run, common = Run.open(cut), Common(device="cpu")
    begun = reopen(run, common)
    for step, metrics in begun.trainer.run(2):
        run.log(step, {**metrics, **begun.watch()})
    run.save(2, begun.trainer.state_dict())
    result = carry_on(reopen(run, common), Run.open(cut), 1000.0)
    expected, found = final(whole), final(cut)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert (cut / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    told = json.loads((whole / "result.json").read_text())
    assert {**result, "seconds": 0, "run": ""} == {**told, "seconds": 0, "run": ""}
    for name in ("model/model.safetensors", *(() if command == "reward" else ("samples.jsonl",))):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("kind", ["model", "rows"])
def test_a_run_does_not_go_on_with_another_model_or_file(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run with adapters the model's own weights are in no checkpoint: they are the folder's."""
    model, file, out = folder(tmp_path / "model", "gpt2"), pairs(tmp_path / "rows.jsonl"), tmp_path / "run"
    assert main(["dpo", str(file), "--model", str(model), *SMALL, "--lora-rank", "2", "--out", str(out)]) == 0
    assert not any(".base_layer." in name or "wte" in name for name in final(out))
    changed = model / "model.safetensors" if kind == "model" else file
    changed.write_bytes(changed.read_bytes()[:-1] + b" ")
    assert main(["resume", str(out)]) == 2
    assert f"has changed since the run in {out} was begun" in capsys.readouterr().err
