"""What no stage of a language model begins with: it is refused in one line, and before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from accelerate import Accelerator

from generative.preference import thick
from generative.train import TrainError
from qx import language, prefer_images, reward, sft, sft_pretrained
from qx.main import main
from tests.qx.test_dpo_pretrained import folder, pairs
from tests.qx.test_first_stages import demonstrations
from tests.qx.test_prefer_images import options, saved

ONE = ["--steps", "1", "--warmup", "1", "--batch-size", "4", "--device", "cpu"]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_no_stage_begins_with_a_reward_model(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where its head is its embeddings, as in GPT-2, so that no weight of a language model is missing."""
    model, file = folder(tmp_path / "model", kind), str(pairs(tmp_path / "pairs.jsonl"))
    told, made = str(demonstrations(tmp_path / "told.jsonl")), tmp_path / "reward"
    assert main(["reward", file, "--model", str(model), *ONE, "--out", str(made)]) == 0
    capsys.readouterr()
    for words in (["dpo", file], ["sft", told], ["reward", file]):
        assert main([*words, "--model", str(made), *ONE, "--out", str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert "ForSequenceClassification, whose head scores texts; expected a causal language model" in said
        assert said.count("\n") == 1
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["sft", "reward", "dpo"])
def test_a_row_too_long_for_a_models_angles_is_found_before_anything_is_written(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of all rows the longest alone, which is not the first, has the six tokens at which they would change."""
    model = folder(tmp_path / "model", "llama")
    config = json.loads((model / "config.json").read_text())
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    config |= {"max_position_embeddings": 6, "rope_parameters": rope}
    (model / "config.json").write_text(json.dumps(config))
    file = demonstrations(tmp_path / "rows.jsonl") if command == "sft" else pairs(tmp_path / "rows.jsonl")
    words = [command, str(file), "--model", str(model), *ONE, "--held-out", "0"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "its rope type is dynamic, so a sequence of 6 tokens changes" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--limit", "5", "--out", str(tmp_path / "run")]) == 0


def test_the_distance_is_measured_on_sequences_that_the_model_reads(tmp_path: Path) -> None:
    """The longest prompt with as much as the longest side has would be 11 tokens, at which its angles change."""
    model, file = folder(tmp_path / "model", "llama"), tmp_path / "pairs.jsonl"
    config = json.loads((model / "config.json").read_text())
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 9, "rope_parameters": rope}))
    rows = [("say " * 6, "yes </s>", "no </s>"), ("say ", "yes no yes no </s>", "no no no no </s>")]
    lines = [json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) for row in rows]
    file.write_text("\n".join(lines * 4))
    words = ["dpo", str(file), "--model", str(model), *ONE, "--held-out", "0", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    assert "kl" in json.loads((tmp_path / "run" / "result.json").read_text())


def _sft(home: Path) -> Any:
    told, model = demonstrations(home / "told.jsonl"), folder(home / "model", "llama")
    return sft_pretrained.prepare(sft_pretrained.SftPretrained(data=told, model=model, device="cpu"))


def _reward(home: Path) -> Any:
    asked = reward.Reward(pairs=pairs(home / "pairs.jsonl"), model=folder(home / "model", "llama"), device="cpu")
    return reward.prepare(asked)


STAGES: dict[str, tuple[Any, Any]] = {
    "sft of a folder": (sft_pretrained, _sft),
    "reward": (reward, _reward),
    "thick-digits": (prefer_images, lambda home: prefer_images.prepare(options(saved(home / "base")))),
    "sft": (language, lambda _: sft.prepare(sft.Sft(data="mazes", examples=8, device="cpu"))),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_cast_that_is_not_known_is_refused(stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, prepare = STAGES[stage]
    half = create_autospec(Accelerator, instance=True, mixed_precision="fp16")  # a true one needs a GPU
    monkeypatch.setattr(module, "Accelerator", lambda **_: half)
    monkeypatch.setattr(thick, "pool", lambda *_, **__: pytest.fail("pictures were drawn"))
    with pytest.raises(TrainError, match="the accelerator casts to fp16; expected no or bf16"):
        prepare(tmp_path)
