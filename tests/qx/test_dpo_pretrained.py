"""`qx dpo` on folders of transformers: it learns what is preferred, says what the data held, goes on after a kill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)
from transformers import PreTrainedTokenizerFast as Fast

from generative.language.adapter import body_layers
from qx.main import main

WORDS = ["<s>", "</s>", "<pad>", "say", "please", "yes", "no", "maybe", "more", "less"]
SMALL = ["--steps", "60", "--batch-size", "8", "--learning-rate", "1e-2", "--device", "cpu", "--json"]
ENDS = {"bos_token_id": 0, "eos_token_id": 1}
MODELS: dict[str, Any] = {
    "llama": lambda: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            **ENDS,
        )
    ),
    "phi": lambda: PhiForCausalLM(
        PhiConfig(
            **{"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, **ENDS},
        )
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, **ENDS)),  # tied
}


def folder(at: Path, kind: str) -> Path:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="say"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    draws, model = torch.Generator().manual_seed(0), MODELS[kind]()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.05, generator=draws)
    model.save_pretrained(at)
    Fast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="<pad>").save_pretrained(at)
    return at


def pairs(at: Path) -> Path:
    """More is preferred to less, whatever is asked; and three rows that cannot teach."""
    rows: list[Any] = []
    for prompt in ("say", "please say", "say please", "please"):
        for end in ("yes", "no", "maybe", "yes no"):
            rows.append({"prompt": f"{prompt} ", "chosen": f"{end} more </s>", "rejected": f"{end} less </s>"})
    rows += [{"prompt": "say ", "chosen": "yes", "rejected": "yes"}, {"prompt": "say"}, [1]]
    at.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return at


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_it_learns_what_is_preferred_and_leaves_a_model_that_transformers_loads(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranked right of the four pairs held out: none of them was learned from, and by chance half would be."""
    model, out = folder(tmp_path / "model", kind), tmp_path / "run"
    words = ["dpo", str(pairs(tmp_path / "pairs.jsonl")), "--model", str(model), "--held-out", "0.25", *SMALL]
    assert main([*words, "--out", str(out)]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out.splitlines()[-1])
    assert (result["learned"], result["held_out"]) == (12, 4)
    assert result["rewards/accuracies"] == 1.0
    assert result["rewards/margins"] > 0.5
    assert result["data"]["usable"] == 16
    assert "1 of 19 pairs dropped, identical; the first:" in said.err
    assert "pairs.jsonl:19: [1] where an object" in said.err
    assert (out / "report.png").stat().st_size > 10_000
    plain = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    prompt = tokenizer("please say yes", return_tensors="pt").input_ids
    told = plain(prompt).logits[0, -1].log_softmax(-1)
    before = AutoModelForCausalLM.from_pretrained(model)(prompt).logits[0, -1].log_softmax(-1)
    more, less = tokenizer.convert_tokens_to_ids(["more", "less"])
    assert told[more] - told[less] > before[more] - before[less] + 1
    spoken = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert {*spoken[0]} == {"prompt", "before", "after"}
    card = (out / "model" / "README.md").read_text()
    assert "16 of 19 rows can teach" in card
    assert "| rewards/accuracies | 1 |" in card


def test_a_run_that_was_cut_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model, file = folder(tmp_path / "model", "gpt2"), pairs(tmp_path / "pairs.jsonl")
    words = ["dpo", str(file), "--model", str(model), *SMALL]
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    assert main([*words, "--out", str(tmp_path / "cut")]) == 0
    (tmp_path / "cut" / "result.json").unlink()
    newest = sorted((tmp_path / "cut" / "checkpoint").iterdir())
    for step in newest:  # as killed before its first checkpoint
        for part in step.iterdir():
            part.unlink()
        step.rmdir()
    assert main(["resume", str(tmp_path / "cut"), "--device", "cpu"]) == 0
    whole, cut = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "model").state_dict() for name in ("whole", "cut")
    )
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_model_that_reads_no_row_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Phi's head has a bias."""
    model = folder(tmp_path / "model", "phi")
    words = ["dpo", str(pairs(tmp_path / "pairs.jsonl")), "--model", str(model), *SMALL]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "PhiForCausalLM: its head is" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_moving_average_is_what_is_saved(tmp_path: Path) -> None:
    model, file = folder(tmp_path / "model", "gpt2"), pairs(tmp_path / "pairs.jsonl")
    for name, words in (("plain", []), ("average", ["--ema", "0.2"])):
        assert main(["dpo", str(file), "--model", str(model), *SMALL, *words, "--out", str(tmp_path / name)]) == 0
    plain, average = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "model").state_dict() for name in ("plain", "average")
    )
    assert not torch.equal(plain["transformer.wte.weight"], average["transformer.wte.weight"])


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_alone_learn_and_peft_puts_them_where_they_were(kind: str, tmp_path: Path) -> None:
    model, file, out = folder(tmp_path / "model", kind), pairs(tmp_path / "pairs.jsonl"), tmp_path / "run"
    words = ["dpo", str(file), "--model", str(model), *SMALL, "--lora-rank", "3", "--held-out", "0.25"]
    assert main([*words, "--out", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["rewards/accuracies"] == 1.0
    before = AutoModelForCausalLM.from_pretrained(model)
    merged = AutoModelForCausalLM.from_pretrained(out / "model")
    changed = {
        name
        for (name, one), other in zip(before.state_dict().items(), merged.state_dict().values(), strict=True)
        if not torch.equal(one, other)
    }
    layers = {name.removesuffix(".weight") for name in changed}
    assert layers == set(body_layers(before))  # and not the head, the embeddings, norms or biases
    for name in layers:
        difference = (merged.get_submodule(name).weight - before.get_submodule(name).weight).double()
        assert int(torch.linalg.matrix_rank(difference, rtol=1e-4)) == 3
    told = PeftModel.from_pretrained(before, out / "adapter").eval()
    tokens = torch.tensor([[3, 4, 5, 8]])
    torch.testing.assert_close(told(tokens).logits, merged.eval()(tokens).logits, rtol=0, atol=1e-5)
    assert json.loads((out / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == tmp_path.name
    written = [file for part in ("adapter", "model") for file in (out / part).iterdir()]
    assert not [file for file in written if str(tmp_path).encode() in file.read_bytes()]  # which people publish


def test_activations_that_are_computed_again_change_nothing(tmp_path: Path) -> None:
    model, file = folder(tmp_path / "model", "llama"), pairs(tmp_path / "pairs.jsonl")
    words = ["dpo", str(file), "--model", str(model), *SMALL]
    for name, more in (("kept", []), ("again", ["--checkpointing"])):
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
    kept, again = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name / "model").state_dict() for name in ("kept", "again")
    )
    for name, weight in kept.items():
        torch.testing.assert_close(again[name], weight, rtol=0, atol=1e-5)


def test_what_is_for_models_of_transformers_is_refused_for_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "model.json").write_text("{}")
    words = ["dpo", str(pairs(tmp_path / "pairs.jsonl")), "--model", str(tmp_path / "ours")]
    given = "--lora-rank 2|--checkpointing|--limit 3|--held-out 0.9|--samples-every 1|--lora-alpha 3"
    for flag in (each.split() for each in given.split("|")):
        assert main([*words, *flag]) == 2
        assert f"{flag[0]}: for models of transformers" in capsys.readouterr().err


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    words = ["dpo", str(pairs(tmp_path / "pairs.jsonl")), "--model", str(tmp_path / "model"), *SMALL]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "no causal language model in safetensors here" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
