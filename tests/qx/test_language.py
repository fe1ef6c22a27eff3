"""`qx dpo` on the lab's own models: its numbers, found again from the saved models, and which mazes judge them."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from generative.language import mazes
from generative.language.model import LanguageModel
from generative.language.tokenizer import CharacterTokenizer
from generative.preference.best import drawn
from lab import checkpoint, streams
from lab.run import Run
from qx import language, maze_report
from qx.dpo import dpo
from qx.dpo import reopen as reopened
from qx.main import main
from qx.usage import Common

SEED = 3
BODY = ["--width", "16", "--depth", "1", "--heads", "2", "--device", "cpu"]
LEARNS = ["--batch-size", "25", "--learning-rate", "1e-2", "--warmup", "1", "--device", "cpu", "--seed", str(SEED)]


def logp(model: LanguageModel, prompt: list[int], side: list[int]) -> Tensor:
    """log p(side | prompt), summed, in nats: of the sequence by itself."""
    numbers = torch.tensor([[*prompt, *side]])
    score = torch.arange(numbers.shape[1])[None] >= len(prompt)
    with torch.no_grad():
        return model(numbers, score).double().sum()


class Sums(NamedTuple):
    """A model that adds, and preferred sums."""

    sft: Path
    file: Path
    tokenizer: CharacterTokenizer

    @property
    def pairs(self) -> list[tuple[list[int], list[int], list[int]]]:
        """Prompt, chosen and rejected of each, in tokens."""
        rows = [json.loads(line) for line in self.file.read_text().splitlines()]
        encode, (bos, eos) = self.tokenizer.encode, (self.tokenizer.bos, self.tokenizer.eos)
        sides = [[[*encode(row[name]), eos] for name in ("chosen", "rejected")] for row in rows]
        return [([bos, *encode(row["prompt"])], good, bad) for row, (good, bad) in zip(rows, sides, strict=True)]


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Sums:
    home = tmp_path_factory.mktemp("sums")
    shown = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(5) for b in range(5)]
    preferred = [{**row, "chosen": row["completion"], "rejected": f"{row['completion']}1"} for row in shown]
    for name, rows in (("shown.jsonl", shown), ("pairs.jsonl", preferred)):
        (home / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["sft", str(home / "shown.jsonl"), *BODY, "--steps", "20", "--out", str(home / "sft")]) == 0
    tokenizer = CharacterTokenizer.load(home / "sft" / "model" / "tokenizer.json")
    return Sums(home / "sft", home / "pairs.jsonl", tokenizer)


def test_every_update_is_told_what_the_reference_says(sums: Sums, tmp_path: Path) -> None:
    """All pairs in one batch: before each update its metrics are means over all, of four numbers a pair."""
    out, beta = tmp_path / "run", 0.7
    words = [str(sums.file), "--model", str(sums.sft), *LEARNS, "--steps", "3", "--beta", str(beta), "--anchor", "0"]
    dpo([*words, "--out", str(out)])
    reference = LanguageModel.load(sums.sft / "model").eval()
    job: Any = reopened(Run.open(out), Common(device="cpu"))
    logged, running = Run.open(out).metrics(), job.trainer.run()
    for step in range(3):
        policy = job.trainer.bare.eval()
        good, bad = (
            torch.stack(
                [logp(policy, each[0], each[side]) - logp(reference, each[0], each[side]) for each in sums.pairs]
            )
            for side in (1, 2)
        )
        expected = {
            "loss": torch.log(1 + torch.exp(beta * (bad - good))).mean().item(),
            "rewards/chosen": beta * good.mean().item(),
            "rewards/rejected": beta * bad.mean().item(),
        }
        assert {name: logged[step][name] for name in expected} == pytest.approx(expected, abs=1e-5)
        next(running)
    assert logged[2]["loss"] < math.log(2) - 0.01


@pytest.mark.parametrize("more", [[], ["--ema", "0.2"]])
def test_the_distance_to_the_reference(more: list[str], sums: Sums, tmp_path: Path) -> None:
    """Of what the saved policy says, log p by it less log p by the model that it began as."""
    out = tmp_path / "run"
    result = dpo([str(sums.file), "--model", str(sums.sft), *LEARNS, *more, "--steps", "10", "--out", str(out)])
    before, after = (LanguageModel.load(run / "model").eval() for run in (sums.sft, out))
    prompts, limit = [each[0] for each in sums.pairs], max(len(side) for each in sums.pairs for side in each[1:])
    said = drawn(after, prompts, 4, seed=streams.derive(SEED, "drift"), limit=limit, end=sums.tokenizer.eos)
    gone = torch.stack(
        [
            logp(after, prompt, each) - logp(before, prompt, each)
            for prompt, drew in zip(prompts, said, strict=True)
            for each in drew
        ]
    )
    assert result["kl"] == pytest.approx(gone.mean().item(), abs=1e-5)
    assert result["kl_error"] == pytest.approx(gone.std().item() / math.sqrt(len(gone)), abs=1e-5)
    assert result["kl"] > 5 * result["kl_error"]
    state = checkpoint.load(out / "checkpoint").state
    kept = state["average" if more else "model"]
    assert all(torch.equal(weight, kept[name]) for name, weight in after.state_dict().items())


def test_mazes_that_judge_are_never_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walker that goes nowhere in each eighth, and two steps too many in each eighth besides."""
    walked = list[str]()

    def walk(_: Any, __: Any, texts: list[str]) -> list[str]:
        walked.extend(texts)
        best = [mazes.shortest(mazes.Maze(text), random.Random(0)) for text in texts]
        return [_worse(text, moves, i) for i, (text, moves) in enumerate(zip(texts, best, strict=True))]

    monkeypatch.setattr(maze_report, "walk", walk)
    tokenizer = CharacterTokenizer(mazes.ALPHABET)
    nobody: Any = None
    found = maze_report.score(nobody, tokenizer)
    assert len(walked) == found["mazes"] == 1000
    assert all(mazes.held_out(text) for text in walked)
    assert len({text.replace("S", ".").replace("G", ".") for text in walked}) > 300
    assert found == pytest.approx({"success": 7 / 8, "optimal": 6 / 7, "excess": 2 / 7, "mazes": 1000})


def _worse(text: str, moves: str, place: int) -> str:
    """The walk, or one that is no way to the goal, or has a step and back before it."""
    if place % 8 == 0:
        return ""
    back = {"U": "D", "D": "U", "L": "R", "R": "L"}
    return f"{moves[0]}{back[moves[0]]}{moves}" if place % 8 == 4 else moves


def test_before_is_the_reference_and_after_the_policy(
    sums: Sums, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that speaks of mazes; here every model does, and its score is a sum of its weights."""

    def score(model: LanguageModel, _: Any) -> dict[str, Any]:
        return {"success": sum(weight.sum().item() for weight in model.parameters()), "optimal": 0.0, "mazes": 1}

    monkeypatch.setattr(language.LanguageJob, "speaks_of_mazes", True)
    monkeypatch.setattr(maze_report, "score", score)
    monkeypatch.setattr(maze_report, "draw", lambda *_: None)
    monkeypatch.setattr(language.LanguageJob, "summary", lambda *_: [])
    out = tmp_path / "run"
    result = dpo([str(sums.file), "--model", str(sums.sft), *LEARNS, "--steps", "3", "--out", str(out)])
    before, after = (score(LanguageModel.load(run / "model"), None) for run in (sums.sft, out))
    assert result["before"] == pytest.approx(before)
    assert result["success"] == pytest.approx(after["success"])
    assert abs(before["success"] - after["success"]) > 1e-3


def test_the_distance_in_words() -> None:
    assert language.distance({"kl": -0.001, "kl_error": 0.0123}) == (
        "0.00 nats a completion to the reference, standard error 0.012"
    )
    far = language.distance({"kl": 31.0, "kl_error": 1.5})
    assert far.startswith("31.00 nats")
    assert "--learning-rate or a larger --beta" in far
