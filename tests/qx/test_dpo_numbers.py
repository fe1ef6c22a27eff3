"""`qx dpo` on a folder of transformers: its numbers and words, found again by plain forwards of the saved models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from generative.language.pretrained import Pretrained
from generative.preference.best import drawn_pretrained
from generative.preference.tokens import Tokens
from generative.train import TrainConfig
from lab import checkpoint, streams
from lab.run import Run
from qx.dpo import Dpo, dpo, prepare
from qx.held_out import divided
from tests.qx.test_dpo_pretrained import folder, pairs

SEED, BETA, ANCHOR = 5, 0.5, 0.3
WORDS = ["--held-out", "0.25", "--beta", str(BETA), "--anchor", str(ANCHOR), "--seed", str(SEED), "--device", "cpu"]
SHORT = ["--steps", "20", "--batch-size", "8", "--learning-rate", "1e-2", "--warmup", "1"]
WAYS = {
    "plain": ["--samples-every", "8"],
    "average": ["--ema", "0.2"],
    "adapters": ["--lora-rank", "2", "--samples-every", "0"],
}


class Found(NamedTuple):
    """A run, and what stands on the disk before and after it."""

    out: Path
    result: dict[str, Any]
    before: Any
    after: Any
    tokenizer: Any
    learned: list[Tokens]
    held: list[Tokens]

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        """Each once, the held-out ones first."""
        return list(dict.fromkeys(each.prompt for each in (*self.held, *self.learned)))

    @property
    def longest(self) -> int:
        """Tokens of the longest side, of the first pair of each prompt."""
        first = {each.prompt: each for each in reversed([*self.held, *self.learned])}
        return max(len(side) for each in first.values() for side in (each.chosen, each.rejected))


def certain(at: Path) -> Path:
    """A folder whose model is surer of what it says than by its first weights, so that pairs differ under it."""
    model = AutoModelForCausalLM.from_pretrained(folder(at, "llama"))
    with torch.no_grad():
        model.lm_head.weight.mul_(50.0)
    model.save_pretrained(at)
    return at


def is_what_was_learned(model: Any, run: Path) -> bool:
    """Whether a saved model is the last checkpoint's: its moving average, where one is kept, and not the last weights.

    Not for adapters, of which no more is kept there.
    """
    state, saved = checkpoint.load(run / "checkpoint").state, model.state_dict()
    which = [
        all(torch.equal(weight, saved[name.removeprefix("model.")]) for name, weight in state[kind].items())
        for kind in ("model", "average")
        if kind in state
    ]
    return which in ([True], [False, True])


def logp(model: Any, prompt: tuple[int, ...], side: tuple[int, ...]) -> Tensor:
    """log p(side | prompt), summed, in nats: of the sequence by itself."""
    numbers = torch.tensor([[*prompt, *side]])
    with torch.no_grad():
        told = model(numbers).logits[0].double().log_softmax(-1)
    return told[:-1].gather(1, numbers[0, 1:, None])[len(prompt) - 1 :].sum()


def greedy(model: Any, tokenizer: Any, prompt: tuple[int, ...], limit: int, **options: Any) -> str:
    """What transformers itself goes on with, without the end."""
    asked = torch.tensor([prompt])
    said = model.generate(asked, attention_mask=torch.ones_like(asked), do_sample=False, max_new_tokens=limit)
    new = said[0, len(prompt) :].tolist()
    return tokenizer.decode(new[: new.index(1)] if 1 in new else new, **options)


def tokenised(file: Path, tokenizer: Any) -> list[Tokens]:
    """The pairs of the file that can teach, as the words stand there."""
    rows = [json.loads(line) for line in file.read_text().splitlines()[:16]]
    return [
        Tokens(*(tuple(tokenizer(row[name]).input_ids) for name in ("prompt", "chosen", "rejected"))) for row in rows
    ]


@pytest.fixture(scope="module", params=WAYS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    home = tmp_path_factory.mktemp(request.param)
    model, file, out = certain(home / "model"), pairs(home / "pairs.jsonl"), home / "run"
    result = dpo([str(file), "--model", str(model), *WORDS, *SHORT, *WAYS[request.param], "--out", str(out)])
    before, after = (AutoModelForCausalLM.from_pretrained(each).eval() for each in (model, out / "model"))
    tokenizer = AutoTokenizer.from_pretrained(model)
    return Found(out, result, before, after, tokenizer, *divided(tokenised(file, tokenizer), SEED, 0.25))


def test_what_is_said_of_pairs_held_out(found: Found) -> None:
    """Rewards and losses by their definitions, of four numbers a pair; in the result and in the last line logged."""
    sides = [
        [
            logp(model, each.prompt, side)
            for model in (found.after, found.before)
            for side in (each.chosen, each.rejected)
        ]
        for each in found.held
    ]
    assert len(sides) == 4
    chosen, rejected, old_chosen, old_rejected = torch.tensor(sides).double().unbind(dim=1)
    good, bad = BETA * (chosen - old_chosen), BETA * (rejected - old_rejected)
    preference = torch.log(1 + torch.exp(bad - good))
    expected = {
        "loss": preference - ANCHOR * chosen,
        "loss/preference": preference,
        "rewards/chosen": good,
        "rewards/rejected": bad,
        "rewards/margins": good - bad,
        "rewards/accuracies": (good > bad).double(),
        "logps/chosen": chosen,
        "logps/rejected": rejected,
    }
    means = {name: value.mean().item() for name, value in expected.items()}
    assert {name: found.result[name] for name in means} == pytest.approx(means, abs=2e-5)
    assert found.result["chosen_moved"] == pytest.approx((chosen - old_chosen).mean().item(), abs=2e-5)
    assert abs(found.result["chosen_moved"]) > 0.01
    last = json.loads((found.out / "metrics.jsonl").read_text().splitlines()[-1])
    assert {name: last[f"held_out/{name}"] for name in means} == pytest.approx(means, abs=2e-5)


def test_the_distance_to_the_reference(found: Found) -> None:
    """Of what the policy says, log p by it less log p by the model that it began as."""
    policy = Pretrained(found.after, found.tokenizer)
    said = drawn_pretrained(policy, found.prompts, 4, seed=streams.derive(SEED, "drift"), limit=found.longest)
    gone = torch.stack(
        [
            logp(found.after, prompt, tuple(each)) - logp(found.before, prompt, tuple(each))
            for prompt, drawn in zip(found.prompts, said, strict=True)
            for each in drawn
        ]
    )
    assert len(gone) == 16
    assert found.result["kl"] == pytest.approx(gone.mean().item(), abs=2e-5)
    assert found.result["kl_error"] == pytest.approx(gone.std().item() / math.sqrt(16), abs=2e-5)


def test_what_is_said_before_and_after(found: Found) -> None:
    """The prompts held out are the first, and what is heard while it trains is the policy, too."""
    spoken = [json.loads(line) for line in (found.out / "samples.jsonl").read_text().splitlines()]
    expected = [
        {
            "prompt": found.tokenizer.decode(prompt),
            "before": greedy(found.before, found.tokenizer, prompt, found.longest),
            "after": greedy(found.after, found.tokenizer, prompt, found.longest),
        }
        for prompt in found.prompts
    ]
    assert spoken == expected
    assert all(each["before"] != each["after"] for each in spoken)
    heard = sorted((found.out / "progress").glob("*"))
    every = {"plain": [8, 16, 20], "average": [4, 8, 12, 16, 20], "adapters": []}[
        found.out.parent.name.rstrip("0123456789")
    ]
    assert [path.name for path in heard] == [f"{step:06d}.jsonl" for step in every]
    if heard:
        last = [json.loads(line) for line in heard[-1].read_text().splitlines()]
        assert last == [{"prompt": each["prompt"], "completion": each["after"]} for each in expected[:3]]


def test_the_moving_average_is_kept_and_not_the_last_weights(found: Found) -> None:
    if not (found.out / "adapter").exists():
        assert is_what_was_learned(found.after, found.out)


def test_what_is_heard_while_it_trains_is_the_moving_average(tmp_path: Path) -> None:
    model, file = certain(tmp_path / "model"), pairs(tmp_path / "pairs.jsonl")
    train = TrainConfig(steps=2, batch_size=8, ema=0.2)
    job: Any = prepare(Dpo(pairs=file, model=model, train=train, device="cpu"))
    average = job.trainer.result.eval().model
    for weight in job.trainer.bare.parameters():
        weight.data.neg_()  # the last weights say something else
    job.look(Run.create(tmp_path / "run", "dpo", {}, 0), 2)
    heard = [json.loads(line) for line in (tmp_path / "run" / "progress" / "000002.jsonl").read_text().splitlines()]
    assert len(heard) == 3
    for each in heard:
        prompt = tuple(job.pretrained.tokenizer(each["prompt"]).input_ids)
        first = next(pair for pair in [*job.held, *job.checked.tokens] if pair.prompt == prompt)
        assert each["completion"] == greedy(average, job.pretrained.tokenizer, prompt, len(first.chosen))
        assert each["completion"] != greedy(job.trainer.bare.model, job.pretrained.tokenizer, prompt, len(first.chosen))


def test_the_seed_draws_the_adapters(tmp_path: Path) -> None:
    model, file = folder(tmp_path / "model", "llama"), pairs(tmp_path / "pairs.jsonl")
    drawn = []
    for seed in (0, 1, 1):
        job: Any = prepare(Dpo(pairs=file, model=model, lora_rank=2, seed=seed, device="cpu"))
        drawn.append(torch.cat([w.flatten() for name, w in job.trainer.bare.named_parameters() if "lora_A" in name]))
    assert torch.equal(drawn[1], drawn[2])
    assert (drawn[0] != drawn[1]).float().mean() > 0.99
