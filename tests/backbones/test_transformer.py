"""The Transformer against Hugging Face's Llama and GPT-2 with their weights, against leaks, and against its cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from backbones.initialise import build
from backbones.masks import CAUSAL, Mask
from backbones.transformer import Transformer

KINDS: dict[str, dict[str, Any]] = {
    "llama": {"groups": 2, "tied": False},
    "gpt-2": {"norm": "layer", "feed_forward": "gelu-tanh", "positions": "learned", "length": 32, "bias": True},
    "sinusoidal": {"positions": "sinusoidal"},
}


def make(seed: int = 0, **kind: Any) -> Transformer:
    return build(
        lambda: Transformer(vocabulary=50, width=32, depth=3, heads=4, **kind), torch.Generator().manual_seed(seed)
    )


def words(batch: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(seed))


def llama_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Hugging Face's names for Llama's weights -> ours."""
    parts = (
        ("model.embed_tokens", "embedding"),
        ("model.layers", "stack.blocks"),
        ("model.norm", "stack.norm"),
        ("lm_head", "head"),
        ("input_layernorm", "attention_norm"),
        ("post_attention_layernorm", "feed_forward_norm"),
        ("self_attn", "attention"),
        ("mlp", "feed_forward"),
        *((f"{ours[0]}_proj", ours) for ours in ("query", "key", "value", "output")),
        *((f"{ours}_proj", ours) for ours in ("gate", "up", "down")),
    )
    named = {}
    for name, tensor in weights.items():
        for theirs, ours in parts:
            name = name.replace(theirs, ours)
        named[name] = tensor
    return named


def gpt2_names(weights: dict[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """Hugging Face's GPT-2 (fused, transposed projections) -> ours."""
    named = {
        "embedding.weight": weights["transformer.wte.weight"],
        "stack.positions.table.weight": weights["transformer.wpe.weight"],
    }
    for part in ("weight", "bias"):
        named[f"stack.norm.{part}"] = weights[f"transformer.ln_f.{part}"]
        for i in range(depth):
            theirs, ours = f"transformer.h.{i}", f"stack.blocks.{i}"
            fused = (
                weights[f"{theirs}.attn.c_attn.{part}"].t().chunk(3)
                if part == "weight"
                else weights[f"{theirs}.attn.c_attn.{part}"].chunk(3)
            )
            for name, tensor in zip(("query", "key", "value"), fused, strict=True):
                named[f"{ours}.attention.{name}.{part}"] = tensor
            for name, peer in (
                ("attention.output", "attn.c_proj"),
                ("feed_forward.up", "mlp.c_fc"),
                ("feed_forward.down", "mlp.c_proj"),
            ):
                tensor = weights[f"{theirs}.{peer}.{part}"]
                named[f"{ours}.{name}.{part}"] = tensor.t() if part == "weight" else tensor
            named[f"{ours}.attention_norm.{part}"] = weights[f"{theirs}.ln_1.{part}"]
            named[f"{ours}.feed_forward_norm.{part}"] = weights[f"{theirs}.ln_2.{part}"]
    return named


def test_logits_equal_hugging_face_llama_with_its_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        peer = LlamaForCausalLM(
            LlamaConfig(
                **{"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4},
                **{"num_key_value_heads": 2, "intermediate_size": 88, "rms_norm_eps": 1e-5, "initializer_range": 0.2},
            )
        ).eval()
    ours = make(groups=2, tied=False, hidden=88)
    ours.load_state_dict(llama_names(peer.state_dict()))
    tokens = words(2, 20)
    mine, theirs = ours.logits(ours(tokens)), peer(tokens).logits
    assert theirs.std() > 1  # the comparison is of numbers that differ from nothing
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_logits_equal_hugging_face_gpt2_with_its_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = GPT2Config(vocab_size=50, n_embd=32, n_layer=3, n_head=4, n_positions=32, initializer_range=0.2)
        peer = GPT2LMHeadModel(config).eval()
    ours = make(**KINDS["gpt-2"])
    ours.load_state_dict(gpt2_names(peer.state_dict(), depth=3))
    tokens = words(2, 20)
    torch.testing.assert_close(ours.logits(ours(tokens)), peer(tokens).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_no_token_sees_a_later_one_or_its_padding(kind: str):
    model, tokens = make(**KINDS[kind]), words(2, 12)
    before = model(tokens)
    for cut in (1, 5, 11):
        other = tokens.clone()
        other[:, cut:] = words(2, 12 - cut, seed=9)
        after = model(other)
        assert torch.equal(after[:, :cut], before[:, :cut])
        assert not torch.allclose(after[:, cut:], before[:, cut:])


@pytest.mark.parametrize("kind", KINDS)
def test_cached_steps_equal_the_whole_computation(kind: str):
    """Rows of lengths 7 and 4 are read at once, padded, then each is continued at its own positions."""
    model, tokens, lengths = make(**KINDS[kind]), words(2, 12), torch.tensor([7, 4])
    prompt = tokens[:, :7].clone()
    prompt[1, 4:] = 49  # padding, to be overwritten
    cache = model.cache(2, 12)
    model(prompt, cache=cache)
    for t in range(5):
        at = lengths + t
        token = tokens.gather(1, at[:, None])
        found = model(token, at[:, None], cache=cache)[:, 0]
        for row in range(2):
            whole = model(tokens[row : row + 1, : at[row] + 1])[0, -1]
            torch.testing.assert_close(found[row], whole, rtol=0, atol=1e-5)


def test_two_sequences_packed_into_one_row_need_only_positions_and_a_block_mask():
    model, a, b = make(), words(1, 5), words(1, 6, seed=1)
    part = torch.tensor([0] * 5 + [1] * 6)
    blocks = CAUSAL & Mask(allowed=(part[:, None] == part)[None, None])
    positions = torch.cat([torch.arange(5), torch.arange(6)])[None]
    packed = model(torch.cat([a, b], dim=1), positions, blocks)
    torch.testing.assert_close(packed, torch.cat([model(a), model(b)], dim=1), rtol=0, atol=1e-5)


def test_weights_start_by_the_stated_rule_and_from_the_generator_alone():
    wide = {"vocabulary": 300, "width": 160, "depth": 8, "heads": 4, "bias": True}
    torch.manual_seed(1)
    one = build(lambda: Transformer(**wide), torch.Generator().manual_seed(5)).state_dict()
    torch.manual_seed(2)
    two = build(lambda: Transformer(**wide), torch.Generator().manual_seed(5)).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    base = math.sqrt(2 / (5 * 160))
    for name, tensor in one.items():
        if name.endswith("bias"):
            assert not tensor.any()
        elif "norm" in name:
            assert bool((tensor == 1).all())
        else:
            shrunk = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
            assert tensor.std().item() == pytest.approx(base / (4 if shrunk else 1), rel=0.03)


def test_arguments_make_the_same_model_again():
    model = make(**KINDS["gpt-2"])
    again = Transformer(**model.arguments)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(words(1, 9)), model(words(1, 9)))


def test_learned_positions_without_a_length_are_refused():
    with pytest.raises(ValueError, match="need a length"):
        make(positions="learned")
