"""Hugging Face's Llama <-> Transformer: configuration and state dict of `LlamaForCausalLM`, both ways.

Known: grouped heads, tied or untied output, biases, any base of the rotary frequencies, stretched linearly or as in
Llama 3.1. The weights pass unchanged: our pairing of rotary features is theirs. Our Transformer has biases on all
linear layers or none, so where only attention or only the feed-forward network has them, the other's are 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from backbones.convert.peers import Weights, expect, fill, need
from backbones.positions import Stretch
from backbones.transformer import Transformer

PEER = "Llama"
SIZES = {
    "vocab_size": "vocabulary",
    "hidden_size": "width",
    "num_hidden_layers": "depth",
    "num_attention_heads": "heads",
    "num_key_value_heads": "groups",
    "intermediate_size": "hidden",
    "max_position_embeddings": "length",
    "rms_norm_eps": "eps",
    "tie_word_embeddings": "tied",
}
NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
BIASES = {"self_attn": "attention_bias", "mlp": "mlp_bias"}
STRETCH = {  # Hugging Face's names of how far a rotary embedding is stretched -> ours
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "original_max_position_embeddings": "length",
        "low_freq_factor": "slow",
        "high_freq_factor": "fast",
    },
}
NAMES = (  # pieces of Hugging Face's names and of ours, in an order in which each can be replaced, and back
    ("model.embed_tokens.", "embedding."),
    ("model.layers.", "stack.blocks."),
    ("model.norm.", "stack.norm."),
    ("lm_head.", "head."),
    (".input_layernorm.", ".attention_norm."),
    (".post_attention_layernorm.", ".feed_forward_norm."),
    (".self_attn.q_proj.", ".attention.query."),
    (".self_attn.k_proj.", ".attention.key."),
    (".self_attn.v_proj.", ".attention.value."),
    (".self_attn.o_proj.", ".attention.output."),
    (".mlp.gate_proj.", ".feed_forward.gate."),
    (".mlp.up_proj.", ".feed_forward.up."),
    (".mlp.down_proj.", ".feed_forward.down."),
)


def load(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Transformer:
    """Llama's configuration (`config.to_dict()` or config.json) and state dict -> Transformer.

    Raises:
        ValueError: for a value that our Transformer cannot do, or weights that do not fit.
    """
    expect(PEER, config, {"model_type": ("llama",)})
    need(PEER, config, NEEDED)
    expect(
        PEER,
        config,
        {"hidden_act": ("silu",), "pretraining_tp": (1,)}
        | {"head_dim": (None, config["hidden_size"] // config["num_attention_heads"])},
    )
    sizes = {ours: config[theirs] for theirs, ours in SIZES.items() if theirs in config}
    sizes.setdefault("eps", 1e-6)  # Llama's own default, as that of `tied` below
    named = {name: tensor for name, tensor in weights.items() if not name.endswith("rotary_emb.inv_freq")}
    sizes.setdefault("tied", False)
    if sizes["tied"]:
        named.pop("lm_head.weight", None)  # the embedding, once more
    biases = {part: bool(config.get(key, False)) for part, key in BIASES.items()}
    bias = any(biases.values())
    for part in (part for part, has in biases.items() if bias and not has):
        weights_of = [name for name in named if f".{part}." in name and name.endswith(".weight")]
        named |= {f"{name.removesuffix('weight')}bias": named[name].new_zeros(len(named[name])) for name in weights_of}
    for theirs, ours in NAMES:
        named = {name.replace(theirs, ours): tensor for name, tensor in named.items()}
    return fill(lambda: Transformer(**sizes, **_rotary(config), bias=bias), named)


def save(module: Transformer) -> tuple[dict[str, Any], Weights]:
    """Transformer -> config.json and the state dict of `LlamaForCausalLM`.

    Raises:
        ValueError: when the module is no Llama.
    """
    a = module.arguments
    known = {"norm": ("rms",), "order": ("pre",), "feed_forward": ("swiglu",), "positions": ("rotary",)}
    expect(PEER, a, known | {"causal": (True,), "experts": (None,)})
    forward = module.stack.layers[0].feed_forward
    config = {theirs: a[ours] for theirs, ours in SIZES.items()}
    config |= {
        "num_key_value_heads": a["groups"] or a["heads"],
        "intermediate_size": forward.get_submodule("up").out_features,
        "max_position_embeddings": a["length"] or 2048,  # rotary positions have no end; Hugging Face names one
        "head_dim": a["width"] // a["heads"],
    }
    stretch = None if a["stretch"] is None else asdict(Stretch(**a["stretch"]))
    kind = "default" if stretch is None else "linear" if stretch["length"] is None else "llama3"
    rope = {"rope_type": kind, "rope_theta": a["theta"]}
    config["rope_parameters"] = rope | {theirs: stretch[ours] for theirs, ours in STRETCH[kind].items() if stretch}
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
    config |= {"attention_bias": a["bias"], "mlp_bias": a["bias"]}
    named: Weights = module.state_dict()
    config["dtype"] = str(module.embedding.weight.dtype).removeprefix("torch.")
    for theirs, ours in NAMES:
        named = {name.replace(ours, theirs): tensor for name, tensor in named.items()}
    return config, named


def _rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """theta and stretch, from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    expect(PEER, {"rope_type": kind}, {"rope_type": tuple(STRETCH)})
    known = {"rope_type", "type", "rope_theta", *STRETCH[kind]}
    for key in rope:
        if key not in known:
            raise ValueError(f"{PEER}: rope parameter {key} is {rope[key]!r}; known here: {', '.join(sorted(known))}")
    stretch = {ours: rope[theirs] for theirs, ours in STRETCH[kind].items()}
    theta = rope.get("rope_theta", config.get("rope_theta", 10_000.0))
    return {"theta": theta, "stretch": stretch or None}
