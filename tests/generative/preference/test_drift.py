"""KL to the reference: estimates against the sum over every completion that a tiny language has."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from backbones.convert import folders, llama
from generative.language.causal import Causal
from generative.language.model import LanguageModel, ModelConfig
from generative.language.pretrained import Pretrained
from generative.preference.best import drawn, drawn_pretrained
from generative.preference.drift import Drift, drift, ratios
from lab import streams

CPU = torch.device("cpu")
VOCABULARY, END, LIMIT = 5, 2, 3
PROMPTS = [[1, 3], [1, 4, 4, 0]]
OTHERS = [token for token in range(VOCABULARY) if token != END]
ALL = [
    *([*begun, END] for length in range(LIMIT) for begun in itertools.product(OTHERS, repeat=length)),
    *(list(whole) for whole in itertools.product(OTHERS, repeat=LIMIT)),
]


def make(seed: int, sharp: float = 1.0) -> LanguageModel:
    model = ModelConfig(width=16, depth=1, heads=2).make(VOCABULARY, streams.generator(seed))
    with torch.no_grad():
        model.transformer.embedding.weight *= sharp
    return model.eval()


@torch.no_grad()
def table(model: LanguageModel) -> torch.Tensor:
    """log p of every completion [prompts, completions], each alone, by the whole softmax, token by token in float64."""
    double, rows = copy.deepcopy(model).double().transformer, []
    for prompt in PROMPTS:
        values = []
        for completion in ALL:
            tokens = torch.tensor([[*prompt, *completion]])
            logp = double.logits(double(tokens))[0].log_softmax(-1)
            values.append(sum(logp[len(prompt) + i - 1, token] for i, token in enumerate(completion)))
        rows.append(torch.stack(values))
    return torch.stack(rows)


@torch.no_grad()
def tokenwise(model: LanguageModel, told: list[list[list[int]]]) -> list[list[float]]:
    """The probability of each token of each completion, prompt after prompt, by the whole softmax in float64."""
    double, rows = copy.deepcopy(model).double().transformer, []
    for prompt, completions in zip(PROMPTS, told, strict=True):
        for completion in completions:
            p = double.logits(double(torch.tensor([[*prompt, *completion]])))[0].softmax(-1)
            rows.append([p[len(prompt) + i - 1, token].item() for i, token in enumerate(completion)])
    return rows


POLICY, REFERENCE = make(1, sharp=2.0), make(2)
PI, REF = table(POLICY), table(REFERENCE)
EXACT = float((PI.exp() * (PI - REF)).sum(1).mean())
TURNED = float((REF.exp() * (REF - PI)).sum(1).mean())


def asked(policy: LanguageModel, reference: LanguageModel, seed: int = 0, each: int = 1000) -> Drift:
    """By draws of the policy."""
    told = drawn(policy, PROMPTS, each, seed=seed, limit=LIMIT, end=END)
    return drift(policy, reference, PROMPTS, told, device=CPU)


def test_the_language_is_whole() -> None:
    for logp in (PI, REF):
        torch.testing.assert_close(logp.exp().sum(1), torch.ones(2, dtype=torch.float64))


def test_estimates_are_of_the_exact_kl_and_of_no_other() -> None:
    """Within four standard errors; the KL the other way round is farther away, and so is a wrong sign."""
    found = asked(POLICY, REFERENCE)
    assert found.completions == 2000
    assert abs(found.kl - EXACT) < 4 * found.error
    assert abs(found.k3 - EXACT) < 4 * found.k3_error
    assert abs(EXACT - TURNED) > max(10 * found.error, 5 * found.k3_error)  # or an exchange of roles would not be seen
    assert 10 * found.error < EXACT


def test_given_completions_are_judged_one_by_one() -> None:
    """Against the table, in rows of any size; and the mean's standard error by its definition. k3 of a token is
    ref/pi - 1 - log(ref/pi), from the probabilities of tokens in float64.
    """
    index = [[0, 3], [20, 58]]
    told = [[ALL[i] for i in both] for both in index]
    d = torch.stack([(PI - REF)[b, i] for b, both in enumerate(index) for i in both])
    both_say = zip(tokenwise(POLICY, told), tokenwise(REFERENCE, told), strict=True)
    k3 = [sum(q / p - 1 - math.log(q / p) for p, q in zip(*both, strict=True)) for both in both_say]
    for at_once in (1, 2, 64):
        found = ratios(POLICY, REFERENCE, PROMPTS, told, device=CPU, at_once=at_once)
        torch.testing.assert_close(found[0], d, rtol=0, atol=1e-5)
        assert found[1].tolist() == pytest.approx(k3, rel=1e-5)
    assert min(k3) > 0.1  # there is something to compare
    mean = drift(POLICY, REFERENCE, PROMPTS, told, device=CPU)
    by_hand = math.sqrt(sum((x - d.mean()) ** 2 for x in d.tolist()) / 3 / 4)
    assert (mean.kl, mean.error) == pytest.approx((float(d.mean()), by_hand), abs=1e-5)
    assert mean.k3 == pytest.approx(sum(k3) / 4, rel=1e-5)


def test_k3_spreads_less_near_the_reference_and_is_nothing_at_it() -> None:
    near = copy.deepcopy(REFERENCE)
    with torch.no_grad():
        near.transformer.embedding.weight += 0.02 * make(3).transformer.embedding.weight
    found, same = asked(near, REFERENCE), asked(REFERENCE, REFERENCE, each=50)
    assert 0 < found.k3_error < found.error / 3
    assert abs(found.kl - found.k3) < 4 * found.error
    assert (same.kl, same.error, same.k3, same.k3_error) == (0, 0, 0, 0)


def test_it_is_a_function_of_its_seed() -> None:
    first, again, other = (asked(POLICY, REFERENCE, seed, each=20) for seed in (0, 0, 1))
    assert first == again
    assert first.kl != other.kl


def test_a_model_of_transformers_drifts_as_far_as_the_same_model_of_ours(tmp_path: Path) -> None:
    told = [ALL[0:30:3], ALL[1:31:3]]
    folders.write(tmp_path, *llama.save(POLICY.transformer))
    theirs = Causal(AutoModelForCausalLM.from_pretrained(tmp_path))
    found, ours = (drift(model, REFERENCE, PROMPTS, told, device=CPU) for model in (theirs, POLICY))
    assert (found.kl, found.k3) == pytest.approx((ours.kl, ours.k3), rel=1e-5, abs=1e-5)
    pretrained = Pretrained(theirs.model, SimpleNamespace(eos_token_id=END, pad_token_id=0))
    told = drawn_pretrained(pretrained, PROMPTS, 500, seed=0, limit=LIMIT)
    found = drift(theirs, REFERENCE, PROMPTS, told, device=CPU)
    assert abs(found.kl - EXACT) < 4 * found.error


def test_too_few_or_unequally_many_completions_are_refused() -> None:
    for prompts, told in ((PROMPTS[:1], [[[3]]]), (PROMPTS, [[[3]], [[3], [4]]]), ([], [])):
        with pytest.raises(ValueError, match=r"\d completions, .* of a prompt: expected 2 in all"):
            drift(POLICY, REFERENCE, prompts, told, device=CPU)
