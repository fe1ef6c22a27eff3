"""Hugging Face's GPT-2 with its weights in ours, and ours in Hugging Face's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from backbones.convert import folders, gpt2
from backbones.initialise import build
from backbones.transformer import Transformer

SIZES = {
    **{"vocab_size": 50, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 32, "initializer_range": 0.2},
    **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "untied": {"tie_word_embeddings": False, "n_inner": 40, "layer_norm_epsilon": 1e-3},
    "gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
}


def peer(**kind: Any) -> GPT2LMHeadModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = GPT2LMHeadModel(GPT2Config(**SIZES | kind)).eval()
    for seed, weight in enumerate(made.parameters()):
        if weight.ndim == 1:  # norms and biases, which start at 1 and 0, and would hide a mistake
            weight.data += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return made


def words(batch: int, length: int) -> torch.Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_equal_hugging_faces(kind: str, dtype: torch.dtype):
    theirs = peer(**KINDS[kind]).to(dtype)
    ours = gpt2.load(theirs.config.to_dict(), theirs.state_dict())
    tokens = words(2, 32)
    mine, other = ours.logits(ours(tokens)), theirs(tokens).logits
    assert other.std() > 1
    exact = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(mine, other, rtol=0, atol=exact)
    toward = torch.randn(mine.shape, generator=torch.Generator().manual_seed(1)).to(dtype) / mine.numel() ** 0.5
    (mine * toward).sum().backward()
    (other * toward).sum().backward()
    for weight in ours.parameters():
        weight.data = weight.grad
    found = gpt2.save(ours)[1]
    for name, weight in theirs.named_parameters():
        scale = float(weight.grad.abs().max())
        torch.testing.assert_close(found[name], weight.grad, rtol=0, atol=20 * exact * scale, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_hugging_face_reads_and_it_comes_back(kind: str, tmp_path: Path):
    theirs = peer(**KINDS[kind])
    ours = gpt2.load(theirs.config.to_dict(), theirs.state_dict())
    folders.write(tmp_path, *gpt2.save(ours))
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    tokens = words(2, 30)
    assert torch.equal(again(tokens).logits, theirs(tokens).logits)
    back = gpt2.load(*folders.read(tmp_path))
    assert back.arguments == ours.arguments
    assert torch.equal(back(tokens), ours(tokens))


def test_a_model_of_ours_becomes_hugging_faces(tmp_path: Path):
    kind = {"norm": "layer", "feed_forward": "gelu-tanh", "positions": "learned", "length": 32, "bias": True}
    ours = build(
        lambda: Transformer(vocabulary=50, width=32, depth=2, heads=4, **kind), torch.Generator().manual_seed(0)
    )
    folders.write(tmp_path, *gpt2.save(ours))
    tokens = words(2, 30)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path)
    torch.testing.assert_close(theirs(tokens).logits, ours.logits(ours(tokens)), rtol=0, atol=1e-5)


def test_the_names_of_the_first_checkpoints_are_understood():
    theirs = peer()
    weights = {name.removeprefix("transformer."): w for name, w in theirs.transformer.state_dict().items()}
    weights |= {"h.0.attn.bias": torch.ones(1, 1, 32, 32), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    ours, tokens = gpt2.load(theirs.config.to_dict(), weights), words(1, 9)
    torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation_function": "silu"}, "GPT-2: activation_function is 'silu'; known here: 'gelu_new' or"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True; known here: False"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False; known here: True"),
        ({"add_cross_attention": True}, "add_cross_attention is True"),
        ({"n_embd": None}, "GPT-2: n_embd is not given; expected a number"),
        ({"n_layer": 4}, r"stack.blocks.3.\S+ are missing"),
    ],
)
def test_what_ours_cannot_do_is_named(change: dict[str, Any], message: str):
    theirs = peer()
    with pytest.raises(ValueError, match=message):
        gpt2.load(theirs.config.to_dict() | change, theirs.state_dict())


def test_what_is_no_gpt2_is_not_saved_as_one():
    with pytest.raises(ValueError, match="GPT-2: norm is 'rms'; known here: 'layer'"):
        gpt2.save(Transformer(vocabulary=9, width=8, depth=1, heads=2))


def test_what_is_absent_has_gpt2s_own_default():
    theirs = peer(n_positions=1024)
    sizes = {key: SIZES[key] for key in ("vocab_size", "n_embd", "n_layer", "n_head")}
    ours, tokens = gpt2.load(sizes, theirs.state_dict()), words(2, 9)
    assert ours.arguments["eps"] == GPT2Config().layer_norm_epsilon
    torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, rtol=0, atol=1e-5)
