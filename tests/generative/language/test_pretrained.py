"""Folders of transformers: read as they are, refused in a line, and continued as transformers itself continues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast as Fast

from generative.language.causal import Causal
from generative.language.pretrained import Pretrained, complete, load
from generative.preference.reward_pretrained import rewarding
from generative.saved import ModelError, of_transformers
from lab import streams

WORDS = ["<s>", "</s>", "<pad>", "one", "two", "three", "four", "five"]


def tokenizer(words: list[str] = WORDS, end: str | None = "</s>") -> Any:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[3]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return Fast(tokenizer_object=made, bos_token="<s>", eos_token=end, pad_token="<pad>")


def llama(words: int = len(WORDS)) -> Any:
    config = LlamaConfig(
        vocab_size=words, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return _drawn(LlamaForCausalLM(config))


def gpt2() -> Any:
    config = GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=1)
    return _drawn(GPT2LMHeadModel(config))


def _drawn(model: Any) -> Any:
    draws = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=draws)
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Pretrained(llama(), tokenizer()).save(tmp_path / "model", "# A model\n")
    return tmp_path / "model"


def test_what_is_saved_is_read_again_here_and_by_transformers(folder: Path) -> None:
    """Also after its attention was exchanged for ours, of which the folder says nothing."""
    assert of_transformers(folder)
    assert not of_transformers(folder.parent)
    found = load(folder)
    Causal(found.model)
    found.save(folder.parent / "again", "card")
    plain = AutoModelForCausalLM.from_pretrained(folder.parent / "again")
    for name, weight in llama().state_dict().items():
        assert torch.equal(plain.state_dict()[name], weight)
    assert "quincunx" not in (folder.parent / "again" / "config.json").read_text()
    assert sorted(p.suffix for p in (folder.parent / "again").iterdir()).count(".safetensors") == 1
    assert (folder / "README.md").read_text() == "# A model\n"


def broken(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:2000])
    elif how == "no weights":
        weights.unlink()
    elif how == "no config":
        config.unlink()
    elif how == "no JSON":
        config.write_text("{")
    elif how == "deeper":
        config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 3}))
    elif how == "wider":
        config.write_text(json.dumps({**json.loads(config.read_text()), "intermediate_size": 48}))
    elif how == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif how == "more tokens":
        tokenizer([*WORDS, "six"]).save_pretrained(folder)
    elif how == "no end":
        tokenizer(end=None).save_pretrained(folder)
    elif how == "picture":
        config.write_text(json.dumps({"model_type": "vit"}))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut", "no causal language model in safetensors"),
        ("no weights", "no causal language model in safetensors"),
        ("no config", "no causal language model here"),
        ("no JSON", "no causal language model in safetensors"),
        ("picture", "no causal language model in safetensors"),
        ("deeper", r"of the model's weights are not here, model\.layers\.2"),
        ("wider", "no causal language model in safetensors|weights of another size"),
        ("no tokenizer", "no tokenizer that transformers can read"),
        ("more tokens", "its tokenizer knows 9 tokens, its model 8"),
        ("no end", "no end-of-sequence token"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(folder: Path, how: str, message: str) -> None:
    broken(folder, how)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_reward_model_is_no_language_model(make: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Also of GPT-2, whose head is its embeddings, so that no weight is missing; and nothing else is said of it."""
    found = rewarding(Causal(make()), 2)
    Pretrained(found.model, tokenizer()).save(tmp_path / "reward", "card")
    capfd.readouterr()
    name = type(make()).__name__.replace("LMHeadModel", "ForCausalLM").replace("CausalLM", "SequenceClassification")
    words = f"{tmp_path / 'reward'}: a {name}, whose head scores texts; expected a causal language model"
    with pytest.raises(ModelError) as caught:
        load(tmp_path / "reward")
    assert str(caught.value) == words
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("make", [llama, gpt2])
def test_prompts_are_continued_as_transformers_does(make: Any) -> None:
    """Greedily, prompts of several lengths at once, with our attention in the model; each alone by `generate`."""
    prompts = [[0, 3, 4], [5], [0, 6, 7, 3, 3], [4, 4]]
    ours = Pretrained(make(), tokenizer())
    Causal(ours.model)
    found = complete(ours, prompts, limit=9, batch_size=3)
    for prompt, mine in zip(prompts, found, strict=True):
        told = make().generate(torch.tensor([prompt]), max_new_tokens=9, do_sample=False, pad_token_id=2)
        row = told[0, len(prompt) :].tolist()
        assert mine == (row[: row.index(1)] if 1 in row else row)
    assert complete(ours, prompts, limit=0) == [[], [], [], []]


def test_draws_are_of_the_models_distribution() -> None:
    """The first token after one prompt, 4,000 draws: within four standard deviations of its probability each."""
    ours, count = Pretrained(llama(), tokenizer()), 4000
    draws = complete(ours, [[0, 3]] * count, limit=1, batch_size=500, key=streams.keys(0, "draws", count))
    expected = ours.model(torch.tensor([[0, 3]])).logits[0, -1].softmax(-1)
    for token, p in enumerate(expected.tolist()):
        times = sum(row == ([] if token == 1 else [token]) for row in draws)
        assert abs(times - count * p) < 4 * (count * p * (1 - p)) ** 0.5 + 1


def test_a_folder_that_is_not_there_is_one_line_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere: no causal language model here \(it would hold config\.json\)$"):
        load(tmp_path / "nowhere")
