"""llama2.c's model file <-> Transformer.

A file is seven int32 (width, hidden, depth, heads, groups, vocabulary, length; the vocabulary negative where the
output has a matrix of its own), then float32 in this order, each kind for all layers before the next:

    embedding | attention norm, q, k, v, o | feed-forward norm, gate, down, up | last norm | cos, sin | (output)

cos and sin are tables [length, d/2] of the rotary angles, which we compute and do not need. llama2.c turns the pairs
(2i, 2i+1) of a head, as the paper has it; ours are (i, i + d/2), so the rows of q and k change places within a head.

Source: Karpathy, llama2.c (github.com/karpathy/llama2.c, 2023), `export.py: legacy_export` and `run.c`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from backbones.convert import llama
from backbones.convert.peers import Weights, expect
from backbones.transformer import Transformer

HEADER = struct.Struct("<7i")
FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)
THETA, EPS = 10_000.0, 1e-5  # fixed in run.c
TURNED = ("self_attn.q_proj", "self_attn.k_proj")


def load(path: Path) -> Transformer:
    """The model of a file, float32.

    Raises:
        ValueError: when the file is no such model, or cut short.
        OSError: when it cannot be read.
    """
    return llama.load(*read(path))


def save(path: Path, module: Transformer) -> None:
    """Write the module so that llama2.c runs it. Raises ValueError when it is no Llama that run.c knows."""
    config, weights = llama.save(module)
    expect("llama2.c", config, {"rms_norm_eps": (EPS,), "attention_bias": (False,)})
    rope = {"rope_type": "default", "rope_theta": THETA}
    expect("llama2.c", config, {"rope_parameters": (rope,)})
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    numbers = [config[field] for field in FIELDS]
    if not config["tie_word_embeddings"]:
        numbers[FIELDS.index("vocab_size")] *= -1
    parts = [HEADER.pack(*numbers)]
    for name, _ in order(config):
        if name in ("cos", "sin"):
            tensor = _table(config, name)
        else:
            tensor = weights[name].detach().float().cpu()
            if TURNED[0] in name or TURNED[1] in name:
                tensor = _interleaved(tensor, heads if TURNED[0] in name else groups)
        parts.append(tensor.contiguous().numpy().astype("<f4").tobytes())
    path.write_bytes(b"".join(parts))


def read(path: Path) -> tuple[dict[str, Any], Weights]:
    """A file's configuration and weights, as Hugging Face's Llama names and lays them out. Raises as `load`."""
    payload = path.read_bytes()
    if len(payload) < HEADER.size:
        raise ValueError(f"{path}: {len(payload)} bytes, expected a header of {HEADER.size}")
    numbers = dict(zip(FIELDS, HEADER.unpack_from(payload), strict=True))
    tied = numbers["vocab_size"] > 0
    numbers["vocab_size"] = abs(numbers["vocab_size"])
    if min(numbers.values()) < 1 or numbers["hidden_size"] % numbers["num_attention_heads"]:
        raise ValueError(f"{path}: no model of llama2.c: its header says {numbers}")
    config = {"tie_word_embeddings": tied, "rms_norm_eps": EPS, "rope_theta": THETA, **numbers}
    plan = order(config)
    sizes = [math.prod(shape) for _, shape in plan]
    if len(payload) != HEADER.size + 4 * sum(sizes):
        expected = HEADER.size + 4 * sum(sizes)
        raise ValueError(f"{path}: {len(payload)} bytes, expected {expected} for {numbers}")
    flat = torch.from_numpy(np.frombuffer(payload, "<f4", offset=HEADER.size).astype(np.float32))
    weights: Weights = {}
    for (name, shape), piece in zip(plan, torch.split(flat, sizes), strict=True):
        tensor = piece.view(shape)
        if TURNED[0] in name or TURNED[1] in name:
            groups = numbers["num_attention_heads" if TURNED[0] in name else "num_key_value_heads"]
            tensor = _halved(tensor, groups)
        weights[name] = tensor
    del weights["cos"], weights["sin"]
    return config, weights


def order(config: Mapping[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Name (Hugging Face's) and shape of every tensor of a file, in the file's order."""
    width, hidden, depth, heads, groups, vocabulary, length = (config[field] for field in FIELDS)
    head = width // heads
    layers: list[tuple[str, tuple[int, ...]]] = [
        ("input_layernorm", (width,)),
        ("self_attn.q_proj", (width, width)),
        ("self_attn.k_proj", (groups * head, width)),
        ("self_attn.v_proj", (groups * head, width)),
        ("self_attn.o_proj", (width, width)),
        ("post_attention_layernorm", (width,)),
        ("mlp.gate_proj", (hidden, width)),
        ("mlp.down_proj", (width, hidden)),
        ("mlp.up_proj", (hidden, width)),
    ]
    plan: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (vocabulary, width))]
    plan += [(f"model.layers.{layer}.{name}.weight", shape) for name, shape in layers for layer in range(depth)]
    plan += [("model.norm.weight", (width,)), ("cos", (length, head // 2)), ("sin", (length, head // 2))]
    return plan if config["tie_word_embeddings"] else [*plan, ("lm_head.weight", (vocabulary, width))]


def _halved(weight: Float[Tensor, "hd D"], heads: int) -> Float[Tensor, "hd D"]:
    """Rows (2i, 2i+1) of each head go to (i, i + d/2)."""
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _interleaved(weight: Float[Tensor, "hd D"], heads: int) -> Float[Tensor, "hd D"]:
    """The inverse of `_halved`."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _table(config: Mapping[str, Any], name: str) -> Float[Tensor, "length half"]:
    head = config["hidden_size"] // config["num_attention_heads"]
    frequency = THETA ** -(torch.arange(0, head, 2, dtype=torch.float64) / head)
    angle = torch.arange(config["max_position_embeddings"])[:, None] * frequency
    return (angle.cos() if name == "cos" else angle.sin()).float()
