"""Hugging Face's Llama with its weights in ours, and ours in Hugging Face's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from backbones.convert import folders, llama
from backbones.initialise import build
from backbones.transformer import Transformer
from generative.language.generate import generate
from generative.language.model import LanguageModel

SIZES = {
    **{"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
    **{"intermediate_size": 56, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "initializer_range": 0.2},
}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 24},
    **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "one group": {"num_key_value_heads": 1, "rms_norm_eps": 1e-3},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0}},
    "llama 3": {"rope_parameters": LLAMA3, "num_key_value_heads": 2},
    "biases": {"attention_bias": True, "mlp_bias": True},
}


def peer(**kind: Any) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = LlamaForCausalLM(LlamaConfig(**SIZES | kind)).eval()
    for seed, (name, weight) in enumerate(made.named_parameters()):
        if "norm" in name or "bias" in name:  # which start at 1 and 0, and would hide a mistake
            weight.data += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return made


def words(batch: int, length: int) -> torch.Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_equal_hugging_faces(kind: str, dtype: torch.dtype):
    theirs = peer(**KINDS[kind]).to(dtype)
    ours = llama.load(theirs.config.to_dict(), theirs.state_dict())
    tokens = words(2, 30)
    mine, other = ours.logits(ours(tokens)), theirs(tokens).logits
    assert other.std() > 1  # the comparison is of numbers that differ from nothing
    exact = 2e-5 if kind == "llama 3" else 1e-5  # Hugging Face makes angles in float32, always, and stretches them so
    torch.testing.assert_close(mine, other, rtol=0, atol=exact)
    toward = torch.randn(mine.shape, generator=torch.Generator().manual_seed(1)).to(dtype) / mine.numel() ** 0.5
    (mine * toward).sum().backward()
    (other * toward).sum().backward()
    for weight in ours.parameters():
        weight.data = weight.grad
    found = llama.save(ours)[1]
    for name, weight in theirs.named_parameters():
        scale = float(weight.grad.abs().max())
        torch.testing.assert_close(found[name], weight.grad, rtol=0, atol=20 * exact * scale, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_hugging_face_reads_and_it_comes_back(kind: str, tmp_path: Path):
    theirs = peer(**KINDS[kind])
    ours = llama.load(theirs.config.to_dict(), theirs.state_dict())
    folders.write(tmp_path, *llama.save(ours))
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    tokens = words(2, 30)
    assert torch.equal(again(tokens).logits, theirs(tokens).logits)
    back = llama.load(*folders.read(tmp_path))
    assert back.arguments == ours.arguments
    assert torch.equal(back(tokens), ours(tokens))


def test_a_model_of_ours_becomes_hugging_faces(tmp_path: Path):
    ours = build(
        lambda: Transformer(vocabulary=50, width=32, depth=2, heads=4, groups=2), torch.Generator().manual_seed(0)
    )
    folders.write(tmp_path, *llama.save(ours))
    tokens = words(2, 30)
    theirs = LlamaForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(theirs(tokens).logits, ours.logits(ours(tokens)), rtol=0, atol=1e-5)


def test_greedy_generation_from_our_cache_is_hugging_faces():
    theirs = peer(**KINDS["llama 3"])
    ours = LanguageModel(llama.load(theirs.config.to_dict(), theirs.state_dict()))
    prompts = words(3, 6)
    expected = theirs.generate(prompts, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert generate(ours, prompts.tolist(), limit=20, end=-1) == expected[:, 6:].tolist()


def test_the_shards_and_the_older_configuration_are_read(tmp_path: Path):
    theirs = peer(**KINDS["linear"])
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    config, weights = folders.read(tmp_path)
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope["rope_theta"], "rope_scaling": {"type": "linear", "factor": rope["factor"]}}
    ours, tokens = llama.load(config, weights), words(1, 9)
    torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, "Llama: hidden_act is 'gelu'; known here: 'silu'"),
        ({"model_type": "mistral"}, "model_type is 'mistral'; known here: 'llama'"),
        ({"mlp_bias": True}, r"feed_forward.down.bias, \S+ \S+ \S+ are missing"),
        *[({key: None}, f"Llama: {key} is not given; expected a number") for key in llama.NEEDED],
        ({"head_dim": 16}, "head_dim is 16; known here: None or 8"),
        ({"pretraining_tp": 2}, "pretraining_tp is 2"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'; known here: 'default' or 'linear' or"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"num_hidden_layers": 4}, r"stack.blocks.3.\S+ are missing"),
        ({"num_hidden_layers": 2}, r"stack.blocks.2.\S+ are not known"),
        ({"intermediate_size": 64}, r"shape \[56, 32\], expected \[64, 32\]"),
    ],
)
def test_what_ours_cannot_do_is_named(change: dict[str, Any], message: str):
    theirs = peer()
    with pytest.raises(ValueError, match=message):
        llama.load(theirs.config.to_dict() | change, theirs.state_dict())


@pytest.mark.parametrize("kind", [{"norm": "layer"}, {"positions": "alibi"}, {"order": "post"}, {"causal": False}])
def test_what_is_no_llama_is_not_saved_as_one(kind: dict[str, Any]):
    (key, value), *_ = kind.items()
    with pytest.raises(ValueError, match=f"Llama: {key} is {value!r}"):
        llama.save(Transformer(vocabulary=9, width=8, depth=1, heads=2, **kind))


@pytest.mark.parametrize("key", llama.NEEDED)
def test_a_size_that_is_absent_is_named(key: str):
    theirs = peer()
    config = {name: value for name, value in theirs.config.to_dict().items() if name != key}
    with pytest.raises(ValueError, match=f"Llama: {key} is not given"):
        llama.load(config, theirs.state_dict())


def test_what_is_absent_has_llamas_own_default():
    """In its configuration class: eps 1e-6, no biases, an output of its own, as many groups as heads."""
    sizes = {key: SIZES[key] for key in llama.NEEDED}
    theirs = peer(rms_norm_eps=LlamaConfig().rms_norm_eps)
    ours = llama.load(sizes, theirs.state_dict())
    assert ours.arguments["eps"] == LlamaConfig().rms_norm_eps == 1e-6
    tokens = words(2, 9)
    torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("key", ["attention_bias", "mlp_bias"])
def test_biases_of_one_half_alone(key: str, tmp_path: Path):
    theirs = peer(**{key: True}).double()
    config = {name: value for name, value in theirs.config.to_dict().items() if value or not name.endswith("_bias")}
    ours, tokens = llama.load(config, theirs.state_dict()), words(2, 9)
    torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, rtol=0, atol=1e-5)
    folders.write(tmp_path, *llama.save(ours))
    again = LlamaForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(again(tokens).logits, theirs(tokens).logits, rtol=0, atol=1e-5)
