"""`qx sft` on folders of transformers, and `qx reward` on both kinds of model: what they learn and leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from generative.language.tokenizer import CharacterTokenizer
from generative.preference.reward import RewardModel
from lab.run import Run
from qx import reward, sft_pretrained
from qx.jobs import carry_on
from qx.main import main
from qx.usage import Common
from tests.qx.test_dpo_pretrained import folder, pairs

SMALL = ["--steps", "40", "--batch-size", "8", "--learning-rate", "1e-2", "--held-out", "0.25", "--device", "cpu"]
CPU = Common(device="cpu")


def again(path: Path, reopen: Any) -> dict[str, Any]:
    """The result of a run that was killed before its first checkpoint and goes on."""
    (path / "result.json").unlink()
    for step in (path / "checkpoint").iterdir():
        for part in step.iterdir():
            part.unlink()
        step.rmdir()
    run = Run.open(path)
    return carry_on(reopen(run, CPU), run, 30.0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_reward_model_ranks_pairs_held_out_and_transformers_loads_it(kind: str, tmp_path: Path) -> None:
    """More is preferred to less: also after prompts and words that it has not learned from."""
    model, out = folder(tmp_path / "model", kind), tmp_path / "run"
    words = [str(pairs(tmp_path / "pairs.jsonl")), "--model", str(model), *SMALL]
    result = reward.reward([*words, "--out", str(out)])
    assert (result["learned"], result["held_out"]) == (12, 4)
    assert result["rewards/accuracies"] == 1.0
    assert result["rewards/margins"] > 0.5
    plain = AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    more, less = (
        plain(tokenizer(f"please say yes {word} </s>", return_tensors="pt").input_ids).logits.item()
        for word in ("more", "less")
    )
    assert more > less + 0.5
    assert plain.config.pad_token_id == tokenizer.pad_token_id
    assert "| rewards/accuracies | 1 |" in (out / "model" / "README.md").read_text()
    assert (out / "report.png").stat().st_size > 10_000
    assert again(out, reward.reopen)["loss"] == result["loss"]


def test_a_reward_model_of_our_own_is_kept_with_its_tokenizer(tmp_path: Path) -> None:
    few = ["--steps", "3", "--batch-size", "4", "--device", "cpu"]
    assert main(["sft", "mazes", "--examples", "20", "--depth", "1", *few, "--out", str(tmp_path / "sft")]) == 0
    assert main(["pairs", "mazes", str(tmp_path / "pairs.jsonl"), "--count", "40"]) == 0
    words = [str(tmp_path / "pairs.jsonl"), "--model", str(tmp_path / "sft"), *SMALL]
    result = reward.reward([*words, "--out", str(tmp_path / "run")])
    assert (result["learned"], result["held_out"]) == (30, 10)
    model = RewardModel.load(tmp_path / "run" / "model")
    tokenizer = CharacterTokenizer.load(tmp_path / "run" / "model" / "tokenizer.json")
    assert model.transformer.arguments["vocabulary"] == tokenizer.size
    assert bool(model.head.abs().sum() > 0)
    assert again(tmp_path / "run", reward.reopen)["loss"] == result["loss"]


def demonstrations(at: Path) -> Path:
    """Whatever is asked, more is said; and one row without room."""
    rows = [
        {"prompt": f"{prompt} ", "completion": f"{end} more </s>"}
        for prompt in ("say", "please say", "say please", "please")
        for end in ("yes", "no", "maybe", "yes no")
    ]
    at.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"prompt": "say " * 40, "completion": "no"}]))
    return at


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_folder_learns_what_is_demonstrated(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = folder(tmp_path / "model", kind), tmp_path / "run"
    words = [str(demonstrations(tmp_path / "told.jsonl")), "--model", str(model), "--limit", "20", *SMALL]
    result = sft_pretrained.sft([*words, "--out", str(out)])
    assert "1 demonstration left out, overlong prompt; the first:" in capsys.readouterr().err
    assert (result["learned"], result["held_out"]) == (12, 4)
    assert result["nll_per_token"] < result["before"]["nll_per_token"] - 0.5
    plain, tokenizer = (each.from_pretrained(out / "model") for each in (AutoModelForCausalLM, AutoTokenizer))
    told = plain(tokenizer("please say maybe", return_tensors="pt").input_ids).logits[0, -1]
    assert int(told.argmax()) == tokenizer.convert_tokens_to_ids("more")
    before = AutoModelForCausalLM.from_pretrained(model)
    assert not torch.equal(before.get_input_embeddings().weight, plain.get_input_embeddings().weight)
    spoken = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len({each["prompt"] for each in spoken}) == len(spoken) == 4
    assert list(spoken[0]) == ["prompt", "demonstrated", "before", "after"]
    assert spoken[0]["demonstrated"].endswith("more")
    assert "12 demonstrations" in (out / "model" / "README.md").read_text()
    assert (out / "report.png").stat().st_size > 10_000
    assert again(out, sft_pretrained.reopen)["loss"] == result["loss"]
