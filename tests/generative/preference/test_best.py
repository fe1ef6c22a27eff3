"""Best of n: its distribution over a language that can be written out, and draws that are each prompt's own."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from backbones.continuations import Continuations
from generative.language.model import LanguageModel, ModelConfig
from generative.language.pretrained import Pretrained
from generative.preference.best import best, divergence, drawn, drawn_pretrained, scored
from generative.preference.reward import RewardModel
from lab import streams

SIZE, BOS, END, LIMIT = 6, 1, 2, 2  # 31 completions: nothing, five of one token, and 25 that are cut at two
CPU = torch.device("cpu")
OTHERS = [token for token in range(SIZE) if token != END]
LANGUAGE = [[END], *([token, END] for token in OTHERS), *([*two] for two in product(OTHERS, OTHERS))]


def policy() -> LanguageModel:
    return ModelConfig(width=16, depth=1, heads=2).make(SIZE, streams.generator(0))


def reward() -> RewardModel:
    model = RewardModel(ModelConfig(width=16, depth=1, heads=2).make(SIZE, streams.generator(1)).transformer)
    with torch.no_grad():
        model.head.normal_(generator=streams.generator(2))
    return model


def probability(model: LanguageModel, prompt: list[int], completion: list[int]) -> float:
    """By the full softmax, in float64."""
    model = model.double()
    tokens = torch.tensor([[*prompt, *completion]])
    logp = model.transformer.logits(model.transformer(tokens)).log_softmax(-1)[0]
    return math.exp(sum(logp[t - 1, tokens[0, t]].item() for t in range(len(prompt), tokens.shape[1])))


def alone(model: RewardModel, prompt: list[int], completion: list[int]) -> float:
    return (model.transformer(torch.tensor([[*prompt, *completion]]))[0, -1] @ model.head).item()


@pytest.mark.parametrize("n", [1, 4])
def test_a_completion_is_said_as_often_as_its_rank_says(n: int) -> None:
    """F(r)^n - F(r-)^n, of 31 completions in 3,000 times: within four and a half standard deviations each."""
    count, prompt = 3000, [BOS, 4]
    found = drawn(policy(), [prompt] * count, n, seed=0, limit=LIMIT, end=END)
    scores = scored(reward(), [prompt] * count, found, device=CPU, batch_size=1000)
    said = [tuple(each) for each in best(found, scores)]
    p = [probability(policy(), prompt, each) for each in LANGUAGE]
    assert sum(p) == pytest.approx(1)
    worth = [alone(reward(), prompt, each) for each in LANGUAGE]
    chances = []
    for r, each in zip(worth, LANGUAGE, strict=True):
        below = sum(q for q, other in zip(p, worth, strict=True) if other < r)
        upto = sum(q for q, other in zip(p, worth, strict=True) if other <= r)
        chances.append(upto**n - below**n)
        times = said.count(tuple(each))
        assert abs(times - count * chances[-1]) < 4.5 * (count * chances[-1] * (1 - chances[-1])) ** 0.5 + 1
    assert sum(chances) == pytest.approx(1)
    apart = sum(c * math.log(c / q) for c, q in zip(chances, p, strict=True))
    assert -1e-12 < apart < divergence(n) + 1e-12


def test_the_bound_is_reached_where_completions_are_many() -> None:
    """Of 100,000 equally likely ones: sum_k (k^n - (k - 1)^n) / N^n log of itself times N."""
    count, n = 100_000, 8
    rank = torch.arange(1, count + 1, dtype=torch.float64) / count
    chance = rank**n - (rank - 1 / count) ** n
    assert float(torch.xlogy(chance, chance * count).sum()) == pytest.approx(divergence(n), abs=1e-3)


PROMPTS = [[BOS, 3, 5], [BOS], [BOS, 4]]


def test_scores_are_those_of_rows_apart_and_draws_are_a_prompts_own() -> None:
    """Fewer draws are the first of more, and other batches draw the same."""
    found = drawn(policy(), PROMPTS, 5, seed=3, limit=4, end=END, batch_size=4)
    assert drawn(policy(), PROMPTS, 5, seed=3, limit=4, end=END) == found
    assert drawn(policy(), PROMPTS[:1], 5, seed=3, limit=4, end=END) == found[:1]
    assert [each[:2] for each in found] == drawn(policy(), PROMPTS, 2, seed=3, limit=4, end=END)
    assert drawn(policy(), PROMPTS, 5, seed=4, limit=4, end=END) != found
    assert all((each[-1] == END) != (len(each) == 4 and END not in each) for all_of in found for each in all_of)
    scores = scored(reward(), PROMPTS, found, device=CPU, batch_size=2)
    for prompt, completions, told in zip(PROMPTS, found, scores.tolist(), strict=True):
        assert told == pytest.approx([alone(reward(), prompt, each) for each in completions], abs=1e-5)


class First:
    """Scores a completion by its first token."""

    def score(self, tokens: torch.Tensor, row: Continuations) -> torch.Tensor:
        first = [int(row.scored[row.owner == k][0]) for k in range(int(row.owner.max()) + 1)]
        return tokens[first].float()


def test_of_equal_scores_the_first_drawn_is_said() -> None:
    found = [[[3, END], [5, 4, END], [5, END]], [[4, END], [4, 3, END], [3, END]]]
    assert best(found, scored(First(), [[BOS], [BOS, 3]], found, device=CPU)) == [[5, 4, END], [4, END]]


class Ends:
    """What is asked of a tokenizer here."""

    eos_token_id, pad_token_id = END, 0


def test_a_model_of_transformers_draws_for_each_prompt_by_itself() -> None:
    """The second prompt's draws do not depend on what the first is, nor are they the first's where both are the same;
    and they are of the model's distribution.
    """
    draws = torch.Generator().manual_seed(0)
    config = GPT2Config(vocab_size=SIZE, n_embd=16, n_layer=1, n_head=2, bos_token_id=BOS, eos_token_id=END)
    model = GPT2LMHeadModel(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=draws)
    ours = Pretrained(model, Ends())
    found = drawn_pretrained(ours, PROMPTS, 5, seed=3, limit=4)
    assert drawn_pretrained(ours, [[BOS, 5, 5, 5], PROMPTS[1]], 5, seed=3, limit=4)[1] == found[1]
    first, second = drawn_pretrained(ours, [PROMPTS[1], PROMPTS[1]], 5, seed=3, limit=4)
    assert first != second == found[1]
    assert drawn_pretrained(ours, PROMPTS, 2, seed=3, limit=4) == [each[:2] for each in found]
    assert drawn_pretrained(ours, PROMPTS, 5, seed=3, limit=4, batch_size=3) == found
    assert drawn_pretrained(ours, PROMPTS, 5, seed=4, limit=4) != found
    assert all((each[-1] == END) != (len(each) == 4 and END not in each) for all_of in found for each in all_of)
    count = 2000
    (many,) = drawn_pretrained(ours, [[BOS, 4]], count, seed=0, limit=1)
    expected = model(torch.tensor([[BOS, 4]])).logits[0, -1].softmax(-1)
    for token, p in enumerate(expected.tolist()):
        assert abs(many.count([token]) - count * p) < 4.5 * (count * p * (1 - p)) ** 0.5 + 1
