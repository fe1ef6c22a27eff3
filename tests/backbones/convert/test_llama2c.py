"""llama2.c: a tiny file written here from Hugging Face's Llama, and a real pretrained model where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from backbones.convert import llama2c
from backbones.transformer import Transformer
from generative.language.generate import complete
from generative.language.model import LanguageModel
from generative.language.pieces import PieceTokenizer

STORIES = Path(__file__).parents[4] / "shared" / "data" / "stories260K"
KINDS: dict[str, dict[str, Any]] = {
    "tied": {"tie_word_embeddings": True, "num_key_value_heads": 2},
    "untied": {"tie_word_embeddings": False, "num_key_value_heads": 4},
}


def peer(**kind: Any) -> LlamaForCausalLM:
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 56, "max_position_embeddings": 24, "initializer_range": 0.2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        made = LlamaForCausalLM(LlamaConfig(rms_norm_eps=1e-5, **sizes, **kind)).eval()
    for seed, (name, weight) in enumerate(made.named_parameters()):
        if "norm" in name:
            weight.data += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return made


def paired(weight: np.ndarray, head: int) -> np.ndarray:
    """Row by row: features i and i + d/2 of a head stand at 2i and 2i + 1 in llama2.c."""
    out = np.empty_like(weight)
    for row in range(len(weight)):
        first, within = row - row % head, row % head
        half = head // 2
        out[first + (2 * within if within < half else 2 * (within - half) + 1)] = weight[row]
    return out


def written(model: LlamaForCausalLM) -> bytes:
    """The model as `legacy_export` of llama2.c's export.py writes it."""
    c, w = model.config, {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    head, layers = c.hidden_size // c.num_attention_heads, range(c.num_hidden_layers)
    sign = 1 if c.tie_word_embeddings else -1
    numbers = (c.hidden_size, c.intermediate_size, c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads)
    parts = [np.array([*numbers, sign * c.vocab_size, c.max_position_embeddings], "<i4").tobytes()]

    def put(array: np.ndarray) -> None:
        parts.append(array.astype("<f4").tobytes())

    def each(name: str, change: Any = lambda array: array) -> None:
        for i in layers:
            put(change(w[f"model.layers.{i}.{name}.weight"]))

    put(w["model.embed_tokens.weight"])
    each("input_layernorm")
    each("self_attn.q_proj", lambda array: paired(array, head))
    each("self_attn.k_proj", lambda array: paired(array, head))
    each("self_attn.v_proj")
    each("self_attn.o_proj")
    each("post_attention_layernorm")
    each("mlp.gate_proj")  # w1
    each("mlp.down_proj")  # w2
    each("mlp.up_proj")  # w3
    put(w["model.norm.weight"])
    angle = np.outer(np.arange(c.max_position_embeddings), 10_000.0 ** -(np.arange(0, head, 2) / head))
    put(np.cos(angle))
    put(np.sin(angle))
    if sign < 0:
        put(w["lm_head.weight"])
    return b"".join(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_logits_of_the_model_it_was_written_from(kind: str, tmp_path: Path):
    theirs, path = peer(**KINDS[kind]), tmp_path / "model.bin"
    path.write_bytes(written(theirs))
    ours = llama2c.load(path)
    tokens = torch.randint(50, (2, 24), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.logits(ours(tokens)), theirs(tokens).logits, rtol=0, atol=1e-4)
    llama2c.save(tmp_path / "again.bin", ours)
    mine, other = (np.frombuffer(file.read_bytes()[28:], "<f4") for file in (tmp_path / "again.bin", path))
    assert (tmp_path / "again.bin").read_bytes()[:28] == path.read_bytes()[:28]
    np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)  # the tables of angles are rounded, the weights are not


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda payload: payload[:20], "20 bytes, expected a header of 28"),
        (lambda payload: payload[:-4], r"\d+ bytes, expected \d+ for {'hidden_size': 32"),
        (lambda payload: b"\0" * len(payload), "no model of llama2.c: its header says {'hidden_size': 0"),
    ],
)
def test_a_file_that_is_none_is_named(change: Any, message: str, tmp_path: Path):
    path = tmp_path / "model.bin"
    path.write_bytes(change(written(peer(**KINDS["tied"]))))
    with pytest.raises(ValueError, match=f"model.bin: {message}"):
        llama2c.load(path)


def test_what_run_c_cannot_do_is_not_saved(tmp_path: Path):
    with pytest.raises(ValueError, match=r"llama2.c: rms_norm_eps is 0.001; known here: 1e-05"):
        llama2c.save(tmp_path / "m.bin", Transformer(vocabulary=9, width=8, depth=1, heads=2, eps=1e-3))
    with pytest.raises(ValueError, match="rope_parameters is"):
        llama2c.save(tmp_path / "m.bin", Transformer(vocabulary=9, width=8, depth=1, heads=2, theta=5e5))


@pytest.mark.skipif(not STORIES.is_dir(), reason="the pretrained model is not here")
def test_a_real_pretrained_model_continues_as_published():
    model = LanguageModel(llama2c.load(STORIES / "stories260K.bin"))
    tokenizer = PieceTokenizer.read(STORIES / "tok512.bin")
    assert sum(weight.numel() for weight in model.parameters()) == 260_032
    (text,) = complete(model, tokenizer, ["Once upon a time"], limit=40)
    assert text.startswith(", there was a little girl named Lily. She loved to play outside in the park.")
