"""`qx sft` and `qx reward` on folders of transformers: their numbers and words, found again from the saved models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from generative.preference.tokens import Tokens
from qx import dpo, reward, sft_pretrained
from qx.held_out import divided
from qx.main import main
from tests.qx.test_dpo_numbers import SHORT, certain, greedy, is_what_was_learned, logp, tokenised
from tests.qx.test_dpo_pretrained import folder, pairs
from tests.qx.test_first_stages import demonstrations

WORDS = ["--held-out", "0.25", "--seed", "5", "--device", "cpu", *SHORT]
WAYS = {"plain": [], "average": ["--ema", "0.2"]}


def last(run: Path) -> dict[str, float]:
    """What was logged of samples held out, after the last update."""
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    return {name.removeprefix("held_out/"): value for name, value in line.items() if name.startswith("held_out/")}


@pytest.mark.parametrize("way", WAYS)
def test_demonstrations_held_out_before_and_after(way: str, tmp_path: Path) -> None:
    """Nats a completion and nats a token; what is said to their prompts comes first."""
    model, file, out = certain(tmp_path / "model"), demonstrations(tmp_path / "told.jsonl"), tmp_path / "run"
    words = [str(file), "--model", str(model), "--limit", "20", *WORDS, *WAYS[way], "--out", str(out)]
    result = sft_pretrained.sft(words)
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = [json.loads(line) for line in file.read_text().splitlines()[:16]]
    texts = [tuple(tuple(tokenizer(row[name]).input_ids) for name in ("prompt", "completion")) for row in rows]
    learned, held = divided([Tokens(prompt, said, ()) for prompt, said in texts], 5, 0.25)
    before, after = (AutoModelForCausalLM.from_pretrained(each).eval() for each in (model, out / "model"))

    def judged(by: Any) -> dict[str, float]:
        loss = torch.stack([-logp(by, each.prompt, each.chosen) for each in held])
        sizes = torch.tensor([len(each.chosen) for each in held])
        return {"loss": loss.mean().item(), "nll_per_token": (loss / sizes).mean().item()}

    assert is_what_was_learned(after, out)
    assert result["before"] == pytest.approx(judged(before), abs=2e-5)
    assert {name: result[name] for name in ("loss", "nll_per_token")} == pytest.approx(judged(after), abs=2e-5)
    assert last(out) == pytest.approx(judged(after), abs=2e-5)
    first = {each.prompt: each.chosen for each in reversed([*held, *learned])}
    prompts, longest = list(dict.fromkeys(each.prompt for each in (*held, *learned))), max(map(len, first.values()))
    expected = [
        {
            "prompt": tokenizer.decode(prompt),
            "demonstrated": tokenizer.decode(first[prompt][:-1]),  # without its end
            "before": greedy(before, tokenizer, prompt, longest, skip_special_tokens=True),
            "after": greedy(after, tokenizer, prompt, longest, skip_special_tokens=True),
        }
        for prompt in prompts
    ]
    assert [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()] == expected
    assert all(each["before"] != each["after"] for each in expected)


@pytest.mark.parametrize("way", WAYS)
def test_rewards_of_pairs_held_out(way: str, tmp_path: Path) -> None:
    """Read off transformers' own classifier, a sequence at a time."""
    model, file, out = certain(tmp_path / "model"), pairs(tmp_path / "pairs.jsonl"), tmp_path / "run"
    result = reward.reward([str(file), "--model", str(model), *WORDS, *WAYS[way], "--out", str(out)])
    plain = AutoModelForSequenceClassification.from_pretrained(out / "model").eval()
    assert is_what_was_learned(plain, out)
    _, held = divided(tokenised(file, AutoTokenizer.from_pretrained(model)), 5, 0.25)

    def scores(side: str) -> Tensor:
        with torch.no_grad():
            asked = [torch.tensor([[*each.prompt, *getattr(each, side)]]) for each in held]
            return torch.cat([plain(each).logits[0].double() for each in asked])

    good, bad = scores("chosen"), scores("rejected")
    expected = {
        "loss": torch.log(1 + torch.exp(bad - good)),
        "rewards/chosen": good,
        "rewards/rejected": bad,
        "rewards/margins": good - bad,
        "rewards/accuracies": (good > bad).double(),
    }
    means = {name: value.mean().item() for name, value in expected.items()}
    assert {name: result[name] for name in means} == pytest.approx(means, abs=2e-5)
    assert last(out) == pytest.approx(means, abs=2e-5)
    assert result["rewards/margins"] > 0.01


def test_no_stage_reads_further_than_the_model(tmp_path: Path) -> None:
    """A model that reads five tokens: the two rows of six are cut, whatever --limit is."""
    model, file = folder(tmp_path / "model", "llama"), pairs(tmp_path / "pairs.jsonl")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 5}))
    for job in (
        reward.prepare(reward.Reward(pairs=file, model=model, device="cpu")),
        dpo.prepare(dpo.Dpo(pairs=file, model=model, device="cpu")),
    ):
        found: Any = job
        assert found.checked.findings.overlong_chosen == found.checked.findings.overlong_rejected == 2
        assert {len(each.prompt + each.chosen) for each in found.checked.tokens} == {4, 5}
    told = demonstrations(tmp_path / "told.jsonl")
    job = sft_pretrained.prepare(sft_pretrained.SftPretrained(data=told, model=model, device="cpu"))
    assert len(job.told.doubts["cut"]) == 2
    assert {len(each.prompt + each.chosen) for each in job.told.tokens} == {4, 5}


def test_a_reward_model_of_our_own_reads_no_further_than_its_body(tmp_path: Path) -> None:
    rows = [{"prompt": "aa", "completion": "ab"}] * 4
    (tmp_path / "told.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    body = ["--positions", "learned", "--length", "6", "--width", "16", "--depth", "1", "--heads", "2"]
    few = ["--steps", "1", "--batch-size", "4", "--device", "cpu", "--out", str(tmp_path / "sft")]
    assert main(["sft", str(tmp_path / "told.jsonl"), *body, *few]) == 0
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "aa", "chosen": "bbaaa", "rejected": "ab"}) + "\n")
    asked = reward.Reward(pairs=tmp_path / "pairs.jsonl", model=tmp_path / "sft", device="cpu")
    found = reward.prepare(asked).checked
    assert found.findings.overlong_chosen == 1
    assert [len(each.prompt + each.chosen) for each in found.tokens] == [6]
