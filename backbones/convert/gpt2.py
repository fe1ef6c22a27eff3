"""Hugging Face's GPT-2 <-> Transformer: configuration and state dict of `GPT2LMHeadModel`, both ways.

GPT-2 holds queries, keys and values in one matrix, and every matrix transposed (`Conv1D`: [in, out]).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from backbones.convert.peers import Weights, expect, fill, need
from backbones.feed_forward import FeedForwardName
from backbones.transformer import Transformer

PEER = "GPT-2"
SIZES = {
    "vocab_size": "vocabulary",
    "n_embd": "width",
    "n_layer": "depth",
    "n_head": "heads",
    "n_positions": "length",
    "n_inner": "hidden",
    "layer_norm_epsilon": "eps",
    "tie_word_embeddings": "tied",
}
ACTIVATIONS: dict[str, FeedForwardName] = {
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "gelu": "gelu",
    "relu": "relu",
}
NAMES = {  # outside of the layers
    "transformer.wte.weight": "embedding.weight",
    "transformer.wpe.weight": "stack.positions.table.weight",
    "transformer.ln_f.weight": "stack.norm.weight",
    "transformer.ln_f.bias": "stack.norm.bias",
    "lm_head.weight": "head.weight",
}
NORMS = {"ln_1": "attention_norm", "ln_2": "feed_forward_norm"}
TRANSPOSED = {"attn.c_proj": "attention.output", "mlp.c_fc": "feed_forward.up", "mlp.c_proj": "feed_forward.down"}
FUSED = ("attention.query", "attention.key", "attention.value")


def load(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Transformer:
    """GPT-2's configuration (`config.to_dict()` or config.json) and state dict -> Transformer.

    Names without `transformer.` before them, and masks stored as weights (as in the first published checkpoints), are
    understood.

    Raises:
        ValueError: for a value that our Transformer cannot do, or weights that do not fit.
    """
    expect(PEER, config, {"model_type": ("gpt2",)})
    need(PEER, config, ("vocab_size", "n_embd", "n_layer", "n_head"))
    known = {"activation_function": tuple(ACTIVATIONS), "scale_attn_weights": (True,)}
    expect(PEER, config, known | {"scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,)})
    sizes = {ours: config[theirs] for theirs, ours in SIZES.items() if theirs in config}
    sizes.setdefault("length", config.get("n_ctx", 1024))
    named: Weights = {}
    for name, tensor in weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")) or (name == "lm_head.weight" and sizes.get("tied", True)):
            continue
        full = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        named |= _ours(full, tensor)
    forward = ACTIVATIONS[config.get("activation_function", "gelu_new")]
    return fill(
        lambda: Transformer(**sizes, norm="layer", feed_forward=forward, positions="learned", bias=True),
        named,
    )


def save(module: Transformer) -> tuple[dict[str, Any], Weights]:
    """Transformer -> config.json and the state dict of `GPT2LMHeadModel`.

    Raises:
        ValueError: when the module is no GPT-2.
    """
    a = module.arguments
    known: dict[str, tuple[Any, ...]] = {
        "norm": ("layer",),
        "order": ("pre",),
        "positions": ("learned",),
        "bias": (True,),
        "causal": (True,),
    }
    known |= {"feed_forward": tuple(ACTIVATIONS.values()), "groups": (None, a["heads"]), "experts": (None,)}
    expect(PEER, a, known)
    config = {theirs: a[ours] for theirs, ours in SIZES.items()}
    config["activation_function"] = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == a["feed_forward"])
    config |= {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    config["dtype"] = str(module.embedding.weight.dtype).removeprefix("torch.")
    weights = module.state_dict()
    named = {theirs: weights[ours] for theirs, ours in NAMES.items() if ours in weights}
    for layer in range(a["depth"]):
        theirs, ours = f"transformer.h.{layer}", f"stack.blocks.{layer}"
        for kind in ("weight", "bias"):
            for peer, name in NORMS.items():
                named[f"{theirs}.{peer}.{kind}"] = weights[f"{ours}.{name}.{kind}"]
            for peer, name in TRANSPOSED.items():
                named[f"{theirs}.{peer}.{kind}"] = weights[f"{ours}.{name}.{kind}"].t()
            fused = torch.cat([weights[f"{ours}.{name}.{kind}"] for name in FUSED])
            named[f"{theirs}.attn.c_attn.{kind}"] = fused.t()
    return config, named


def _ours(name: str, tensor: Tensor) -> Weights:
    """One of GPT-2's weights under our name, or the three that it holds."""
    if not name.startswith("transformer.h."):
        return {NAMES.get(name, name): tensor}
    layer, _, rest = name.removeprefix("transformer.h.").partition(".")
    part, _, kind = rest.rpartition(".")
    block = f"stack.blocks.{layer}"
    if part == "attn.c_attn":
        return {f"{block}.{n}.{kind}": piece for n, piece in zip(FUSED, tensor.t().chunk(3), strict=True)}
    if part in TRANSPOSED:
        return {f"{block}.{TRANSPOSED[part]}.{kind}": tensor.t()}
    return {f"{block}.{NORMS.get(part, part)}.{kind}": tensor}
