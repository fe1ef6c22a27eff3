"""Demonstrations in rows: the loss of each sequence by itself, and the tokens that pairs would have."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
import torch
from pyarrow import parquet
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from generative.language.causal import Causal
from generative.language.demonstrations import DemonstrationData, FineTuning, read
from generative.language.examples import ExampleError
from generative.language.model import ModelConfig
from generative.language.sft import SFT, encode
from generative.language.tokenizer import CharacterTokenizer
from generative.preference.pairs import Pair
from generative.preference.tokens import Plain, Pretrained, Tokens
from lab import streams
from tests.generative.preference.test_tokens import tokenizer

SIZE: dict[str, Any] = {
    **{"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
    **{"bos_token_id": 1, "eos_token_id": 2},
}
MODELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
    ),
}
TOLD = [Tokens((3, 4, 5, 6), (8, 9, 2), ()), Tokens((7,), (2,), (1, 1)), Tokens((), (16, 17, 2), ())]
"""The second has a rejected side, which is not looked at; the third no prompt: its first token is not scored."""
KEY = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_those_of_sequences_apart(name: str) -> None:
    """In float64, by the model's own forward on each sequence."""
    draws, made = torch.Generator().manual_seed(0), MODELS[name]().double().eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.1, generator=draws)
    plain, model = copy.deepcopy(made), Causal(made)
    order = [2, 0, 1]
    found = FineTuning().loss(model, DemonstrationData(TOLD).batch(torch.tensor(order)), KEY)
    expected, counts = [], []
    for told in (TOLD[i] for i in order):
        whole = torch.tensor([[*told.prompt, *told.chosen]])
        labels = whole.clone()
        labels[:, : len(told.prompt)] = -100
        logits = plain(input_ids=whole).logits[0, :-1]
        expected.append(torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum"))
        counts.append(int((labels[0, 1:] >= 0).sum()))
    assert counts == [2, 3, 1]
    torch.testing.assert_close(found.value, torch.stack(expected))
    torch.testing.assert_close(found.metrics["nll_per_token"], torch.stack(expected) / torch.tensor(counts))
    mine = torch.autograd.grad(found.value.sum(), list(model.model.parameters()))
    truth = torch.autograd.grad(torch.stack(expected).sum(), list(plain.parameters()))
    for one, other in zip(mine, truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)  # norms and angles are theirs, in float32


def test_of_the_labs_own_model_it_is_the_loss_of_sft() -> None:
    texts = CharacterTokenizer("abcdefgh")
    prompts, completions = ["ab", "", "defgh"], ["cd", "h", "aaaa"]
    model = ModelConfig(width=16, depth=2, heads=2).make(texts.size, streams.generator(0))
    index = torch.tensor([1, 2, 0])
    tokens = [Plain(texts)(Pair(p, c, "a")) for p, c in zip(prompts, completions, strict=True)]
    found = FineTuning().loss(model, DemonstrationData(tokens).batch(index), KEY)
    padded = SFT().loss(model, encode(texts, prompts, completions).batch(index), KEY)
    torch.testing.assert_close(found.value, padded.value, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.metrics["nll_per_token"], padded.metrics["nll_per_token"], rtol=0, atol=1e-5)


def test_a_batch_is_a_rectangle() -> None:
    batch = DemonstrationData(TOLD).batch(torch.tensor([1, 0]))
    assert batch["tokens"].tolist() == [[7, 2, 0, 0, 0, 0, 0], [3, 4, 5, 6, 8, 9, 2]]
    assert batch["lengths"].tolist() == [[1, 1], [4, 3]]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_a_file_is_tokenised_as_the_chosen_sides_of_pairs(tmp_path: Path) -> None:
    """Ended where it does not end itself, merged at the boundary, by the template; and a pair is its chosen side."""
    rows = [
        {"prompt": "x", "completion": "y"},
        {"prompt": "x", "completion": "y</s>"},
        {"prompt": "xa", "completion": "b"},
        {"prompt": chat(("user", "x")), "completion": chat(("assistant", "y"))},
        {"prompt": "x", "chosen": "y", "rejected": "z"},
        {"chosen": "xy", "rejected": "xz"},
        {"prompt": "x", "chosen": "y", "rejected": "y"},
    ]
    found = read(write(tmp_path / "told.jsonl", rows), Pretrained(tokenizer()), 100)
    decode = tokenizer().decode
    spoken = [(decode(list(t.prompt)), decode(list(t.chosen)), t.rejected) for t in found.tokens]
    assert spoken == [
        ("x", "y</s>", ()),
        ("x", "y</s>", ()),
        ("x", "ab</s>", ()),
        ("<user>x</s><assistant>", "y</s>", ()),
        ("x", "y</s>", ()),
        ("x", "y</s>", ()),
        ("x", "y</s>", ()),
    ]
    place = f"{tmp_path / 'told.jsonl'}:3"
    words = "merged with a completion; a space there belongs to the beginning of the completion"
    assert found.doubts == {"merged": [f"{place}: the last token of the prompt {words}"]}


REJECTED = ["z", "b", "bz", "y", "", " ", "?", None, 3, [], ["z"], chat(("assistant", "z")), "\ud800"]


@pytest.mark.parametrize("rejected", [*({"rejected": each} for each in REJECTED), {}], ids=str)
def test_of_a_pair_with_a_prompt_the_rejected_side_is_not_looked_at(rejected: dict[str, Any], tmp_path: Path) -> None:
    """With "b" after "xa" the rejected side would be one token from "a" on; "?" is a letter that Plain refuses."""
    asked, said = chat(("user", "xa")), chat(("assistant", "y"))
    texts, chats = [("xa", "y"), ("xa", "b"), ("", "yy")], [(asked, said), (asked, [{**said[0], "name": "Ann"}])]
    for rows, tokenise in ((texts, Plain(CharacterTokenizer("abxy"))), (texts + chats, Pretrained(tokenizer()))):
        alone = [{"prompt": prompt, "completion": completion} for prompt, completion in rows]
        pairs = [{"prompt": prompt, "chosen": completion, **rejected} for prompt, completion in rows]
        path = tmp_path / "told.jsonl"
        expected = read(write(path, alone), tokenise, 100)
        assert len(expected.tokens) == len(rows)
        assert read(write(path, pairs), tokenise, 100, strict=True) == expected


def test_of_a_pair_without_a_prompt_the_rejected_side_says_where_that_ends_and_no_more(tmp_path: Path) -> None:
    """Both begin with "xa", and only the rejected side goes on with what merges."""
    found = read(write(tmp_path / "told.jsonl", [{"chosen": "xay", "rejected": "xab"}]), Pretrained(tokenizer()), 100)
    alone = read(write(tmp_path / "told.jsonl", [{"prompt": "xa", "completion": "y"}]), Pretrained(tokenizer()), 100)
    assert found == alone


def test_a_table_is_read_alike(tmp_path: Path) -> None:
    told = {"id": [1, 2], "prompt": ["x", "y"], "completion": ["y", "x"]}
    parquet.write_table(pyarrow.table(told), tmp_path / "told.parquet")
    found = read(tmp_path / "told.parquet", Plain(CharacterTokenizer("xy")), 100)
    assert found.tokens == [Tokens((1, 3), (4, 2), ()), Tokens((1, 4), (3, 2), ())]
    parquet.write_table(pyarrow.table({**told, "completion": ["y", None]}), tmp_path / "none.parquet")
    with pytest.raises(ExampleError, match="row 2: the column 'completion' is null"):
        read(tmp_path / "none.parquet", Plain(CharacterTokenizer("xy")), 100, strict=True)


def test_what_is_too_long_is_cut_or_left_out_and_said(tmp_path: Path) -> None:
    rows = [
        {"prompt": "xx", "completion": "yyyy"},
        {"prompt": "xxxx", "completion": "y"},
        {"prompt": "x", "completion": "y"},
    ]
    path = write(tmp_path / "told.jsonl", rows)
    found = read(path, Pretrained(tokenizer()), 4)
    assert [(len(t.prompt), len(t.chosen)) for t in found.tokens] == [(2, 2), (1, 2)]
    assert found.doubts == {
        "cut": [f"{path}:1: the completion ends after 2 of its 5 tokens: 4 with the prompt"],
        "left out, overlong prompt": [f"{path}:2: its prompt has 4 tokens, and there is room for 4"],
    }
    with pytest.raises(ExampleError, match=r"holds no demonstration to learn from; .*:1: its prompt has 2 tokens"):
        read(path, Pretrained(tokenizer()), 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, r"the column 'completion' is missing; it holds \['prompt'\]"),
        ({"text": "x"}, r"the column 'prompt' is missing; it holds \['text'\]"),
        ({"prompt": "x", "completion": 3}, "'completion' is 3; expected a string, or a list of messages"),
        ({"prompt": "x", "completion": " "}, "the completion is empty"),
        ({"prompt": "x", "chosen": "", "rejected": "y"}, "the chosen side is empty"),
        ({"prompt": "x", "chosen": 3, "rejected": "y"}, "'chosen' is 3; expected a string, or a list of messages"),
        ({"prompt": "x", "chosen": chat(("assistant", "y"))}, "prompt and chosen: expected both strings"),
        ({"promt": "x", "chosen": "y", "rejected": "z"}, "the column 'prompt' is missing; did 'promt' mean it"),
        ({"chosen": "y"}, "the column 'rejected' is missing"),
        ({"prompt": "x", "completion": chat(("assistant", "y"))}, "expected both strings, or both lists of messages"),
        ({"prompt": [], "completion": chat(("assistant", "y"))}, "the prompt has no messages"),
        ({"chosen": "y", "rejected": "y"}, "chosen and rejected are the same text 'y'"),
        ([1], r"\[1\] where an object"),
    ],
)
def test_a_row_that_is_no_demonstration_is_left_out_by_its_place(tmp_path: Path, row: Any, message: str) -> None:
    good = {"prompt": "x", "completion": "y"}
    path = write(tmp_path / "told.jsonl", [good, row, good])
    found = read(path, Pretrained(tokenizer()), 100)
    assert len(found.tokens) == 2
    ((kind, (said,)),) = found.doubts.items()
    assert kind.startswith("left out, ")
    assert re.match(rf"{re.escape(str(path))}:2: .*{message}", said)
    with pytest.raises(ExampleError, match=rf"told\.jsonl:2: .*{message}"):
        read(path, Pretrained(tokenizer()), 100, strict=True)


def test_what_the_tokenizer_refuses_is_refused_by_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "told.jsonl", [{"prompt": "x", "completion": "?"}])
    with pytest.raises(ExampleError, match=r"told\.jsonl:1: character '\?' at 0"):
        read(path, Plain(CharacterTokenizer("xyz")), 100)
    with pytest.raises(ExampleError, match="No such file"):
        read(tmp_path / "none.jsonl", Plain(CharacterTokenizer("xyz")), 100)
    with pytest.raises(ExampleError, match="expected rows with prompt and completion"):
        read(write(tmp_path / "empty.jsonl", []), Plain(CharacterTokenizer("xyz")), 100)
