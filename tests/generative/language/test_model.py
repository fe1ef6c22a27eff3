"""The language model's log-probabilities against a full softmax, its folder against damage, and its generator."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from backbones import packed as packing
from generative.language.generate import choose, complete, generate
from generative.language.model import LanguageModel, ModelConfig
from generative.language.sft import SFT, encode
from generative.language.tokenizer import CharacterTokenizer
from generative.saved import ModelError
from generative.train import TrainConfig, Trainer
from lab import streams

V = 11


def make(positions: str = "rotary", seed: int = 0, spread: float = 4.0) -> LanguageModel:
    """A small model whose opinions are made strong, so that comparisons are of something."""
    model = ModelConfig(width=32, depth=2, heads=2, positions=positions, length=40).make(V, streams.generator(seed))
    with torch.no_grad():
        model.transformer.embedding.weight.mul_(spread)
    return model.eval()


def words(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(3, V, (batch, length), generator=torch.Generator().manual_seed(seed))


def test_scored_tokens_get_their_log_softmax_and_others_zero():
    model, tokens = make(), words(3, 9)
    score = torch.zeros(3, 9, dtype=torch.bool)
    score[0, 4:7], score[1, 1:], score[2, 0] = True, True, True  # the first token has no past and is not judged
    found = model(tokens, score)
    full = model.transformer.logits(model.transformer(tokens)).log_softmax(-1)
    for b in range(3):
        for t in range(9):
            expected = full[b, t - 1, tokens[b, t]].item() if score[b, t] and t else 0.0
            assert found[b, t].item() == pytest.approx(expected, abs=1e-5)


def test_log_probabilities_of_all_texts_of_one_length_sum_to_one():
    model = make()
    pairs = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    tokens = torch.cat([torch.ones(len(pairs), 1, dtype=torch.int64), pairs], dim=1)
    score = torch.ones(tokens.shape, dtype=torch.bool)
    assert model(tokens, score).sum(1).double().exp().sum().item() == pytest.approx(1.0, abs=1e-5)


def test_a_sample_of_sft_does_not_depend_on_its_padding_and_scores_the_end():
    tokenizer, model = CharacterTokenizer("abcdefgh"), make()
    prompts, completions = ["ab", "cdefg", "h"], ["cde", "", "abcdefg"]
    data = encode(tokenizer, prompts, completions)
    batch = data.batch(torch.arange(3))
    value = SFT().loss(model, batch, torch.zeros(3, dtype=torch.int64)).value
    for i in range(3):
        alone = encode(tokenizer, prompts[i : i + 1], completions[i : i + 1]).batch(torch.tensor([0]))
        text = [tokenizer.bos, *tokenizer.encode(prompts[i] + completions[i]), tokenizer.eos]
        assert alone["tokens"].tolist() == [text]
        full = model.transformer.logits(model.transformer(torch.tensor([text]))).log_softmax(-1)[0]
        start = 1 + len(prompts[i])
        expected = -sum(full[t - 1, text[t]].item() for t in range(start, len(text)))
        assert value[i].item() == pytest.approx(expected, abs=1e-4)
    assert data.batch(torch.tensor([0, 1]))["tokens"].shape == (2, 7)  # cut to the longest of the batch


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal"])
def test_greedy_generation_with_a_cache_equals_recomputing_everything(positions: str):
    model = make(positions)
    prompts = [words(1, n, seed=n)[0].tolist() for n in (9, 2, 5, 1)]
    found = generate(model, prompts, limit=12, end=2)
    assert len({tuple(row) for row in found}) > 1
    for prompt, row in zip(prompts, found, strict=True):
        text = list(prompt)
        for _ in range(12):
            token = int(model.transformer.logits(model.transformer(torch.tensor([text])))[0, -1].argmax())
            if token == 2:
                break
            text.append(token)
        assert row == text[len(prompt) :]


@pytest.mark.parametrize("lengths", [(4, 4, 4), (6,), (5, 2)])
def test_steps_by_a_packed_model_equal_recomputing_everything(
    monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...]
):
    """Equal lengths take no mask, and one row another layout. What attention reads decides here."""
    monkeypatch.setattr(packing, "LARGE", 1)
    monkeypatch.setattr(packing, "ROW", 1)
    model = make(spread=1.5)
    with torch.no_grad():
        for block in model.transformer.stack.layers:
            block.attention.output.weight.mul_(40)
            block.attention.key.weight.mul_(8)
    prompts = [words(1, n, seed=i)[0].tolist() for i, n in enumerate(lengths)]
    found = generate(model, prompts, limit=20, end=-1)
    assert max(len(set(row)) for row in found) > 1
    for prompt, row in zip(prompts, found, strict=True):
        text = list(prompt)
        for _ in range(20):
            text.append(int(model.transformer.logits(model.transformer(torch.tensor([text])))[0, -1].argmax()))
        assert row == text[len(prompt) :]


def test_no_prompts_have_no_continuations():
    assert generate(make(), [], limit=20, end=2) == []


def test_a_drawn_continuation_depends_on_its_own_prompt_and_key_alone():
    model = make(spread=2.0)
    prompts = [words(1, n, seed=n)[0].tolist() for n in (6, 3, 9, 3)]
    key = streams.keys(0, "text", 4)
    together = generate(model, prompts, limit=15, end=2, temperature=1.0, key=key)
    for i in range(4):
        assert generate(model, prompts[i : i + 1], limit=15, end=2, temperature=1.0, key=key[i : i + 1]) == [
            together[i]
        ]
    other = generate(model, prompts, limit=15, end=2, temperature=1.0, key=streams.keys(1, "text", 4))
    assert other != together


def test_draws_follow_the_softmax_at_the_temperature():
    """40,000 draws; Pearson's statistic below its 99.9% point for 5 degrees of freedom, 20.5."""
    logits, n = torch.tensor([2.0, 0.0, 1.0, -30.0, 1.5, 0.5, -1.0]), 40_000
    uniform = streams.uniform(torch.arange(n), 3)
    for temperature in (0.5, 1.0, 2.0):
        token = choose(logits.expand(n, 7), temperature, uniform)
        weight = [math.exp(x / temperature) for x in logits.tolist()]
        expected = [n * w / sum(weight) for w in weight]
        count = token.bincount(minlength=7).tolist()
        assert sum((c - e) ** 2 / e for c, e in zip(count, expected, strict=True) if e > 5) < 20.5
    assert choose(logits[None], 1.0, torch.tensor([1 - 2.0**-24])).item() == 6  # the largest uniform draw
    never = torch.tensor([[-math.inf, 0.0, -math.inf]])
    assert choose(never, 1.0, torch.tensor([0.0])).item() == 1  # and the smallest: not a token of probability 0
    assert choose(logits[None], 0.0).item() == 0


def test_a_row_that_has_ended_stays_ended_while_others_go_on():
    tokenizer = CharacterTokenizer("abcdefgh")
    texts = complete(
        make(spread=1.0), tokenizer, ["a", "b", "c"] * 5, limit=20, temperature=1.0, key=streams.keys(0, "k", 15)
    )
    lengths = {len(text) for text in texts}
    assert len(lengths) > 2
    halves = complete(
        make(spread=1.0),
        tokenizer,
        ["a", "b", "c"] * 5,
        limit=20,
        temperature=1.0,
        key=streams.keys(0, "k", 15),
        batch_size=4,
    )
    assert halves == texts


def test_impossible_requests_to_generate_are_refused():
    model = make()
    with pytest.raises(ValueError, match="a prompt without tokens"):
        generate(model, [[1], []], limit=3, end=2)
    with pytest.raises(ValueError, match="temperature -1"):
        generate(model, [[1]], limit=3, end=2, temperature=-1.0)
    with pytest.raises(ValueError, match=r"temperature 1\.0: .* one key"):
        generate(model, [[1]], limit=3, end=2, temperature=1.0)
    assert generate(model, [[1]], limit=0, end=2) == [[]]


def test_a_model_survives_the_disk_bit_for_bit(tmp_path: Path):
    model, tokens = make("learned"), words(2, 8)
    model.save(tmp_path / "model")
    again = LanguageModel.load(tmp_path / "model")
    score = torch.ones(2, 8, dtype=torch.bool)
    assert torch.equal(again(tokens, score), model(tokens, score))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]
    again(tokens, score).sum().backward()  # and can be trained on
    assert all(p.grad is not None for p in again.parameters())


def test_a_damaged_or_foreign_folder_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(ModelError, match="no saved language model here"):
        LanguageModel.load(tmp_path / "nothing")
    make().save(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match=r"model\.safetensors: damaged, or cut short") as caught:
        LanguageModel.load(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "model.safetensors").write_bytes(weights)
    header = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**header, "description": {**header["description"], "width": 16}}))
    with pytest.raises(ModelError, match="its weights do not fit") as caught:
        LanguageModel.load(tmp_path)
    assert "\n" not in str(caught.value)
    (tmp_path / "model.json").write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(ModelError, match=r"format 99; .* reads format 1"):
        LanguageModel.load(tmp_path)


def test_sft_learns_the_frequencies_of_its_demonstrations():
    """One prompt, answered "a" 1 time in 6, "bb" 2 in 6, "" 3 in 6: the model ends at those probabilities, seed 0."""
    tokenizer = CharacterTokenizer("abcdefgh")
    data = encode(tokenizer, ["c"] * 6, ["a", "bb", "bb", "", "", ""])
    model = ModelConfig(width=32, depth=2, heads=2).make(tokenizer.size, streams.generator(0))
    config = TrainConfig(steps=150, batch_size=6, learning_rate=3e-3, warmup=10)
    for _ in Trainer(model, SFT(), data, config, seed=0).run():
        pass
    batch = encode(tokenizer, ["c"] * 3, ["a", "bb", ""]).batch(torch.arange(3))
    found = (-SFT().loss(model.eval(), batch, torch.zeros(3, dtype=torch.int64)).value).exp()
    torch.testing.assert_close(found.detach(), torch.tensor([1 / 6, 2 / 6, 3 / 6]), rtol=0, atol=0.01)
