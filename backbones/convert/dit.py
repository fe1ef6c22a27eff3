"""diffusers' `DiTTransformer2DModel` <-> `backbones.dit.DiT`.

Each of their blocks embeds timestep and label for itself, and the last layer reads the first block's embedding. Where
all of these weights are equal (as trained by the paper's code) ours hold them once, otherwise once a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from backbones.convert.names import inverse, rename
from backbones.convert.peers import expect, fill
from backbones.dit import DiT
from backbones.feed_forward import FeedForwardName

TABLE = {
    "pos_embed.proj": "patches.conv",
    "transformer_blocks.#.norm1.emb.timestep_embedder.linear_1": "conditions.#.timestep.linear_1",
    "transformer_blocks.#.norm1.emb.timestep_embedder.linear_2": "conditions.#.timestep.linear_2",
    "transformer_blocks.#.norm1.emb.class_embedder.embedding_table": "conditions.#.label",
    "transformer_blocks.#.norm1.linear": "stack.blocks.#.modulation.linear",
    "transformer_blocks.#.attn1.to_q": "stack.blocks.#.attention.query",
    "transformer_blocks.#.attn1.to_k": "stack.blocks.#.attention.key",
    "transformer_blocks.#.attn1.to_v": "stack.blocks.#.attention.value",
    "transformer_blocks.#.attn1.to_out.0": "stack.blocks.#.attention.output",
    "transformer_blocks.#.ff.net.0.proj": "stack.blocks.#.feed_forward.up",
    "transformer_blocks.#.ff.net.2": "stack.blocks.#.feed_forward.down",
    "proj_out_1": "modulation",
    "proj_out_2": "output",
}
ACTIVATIONS: dict[str, FeedForwardName] = {"gelu-approximate": "gelu-tanh", "gelu": "gelu"}
KNOWN: dict[str, tuple[Any, ...]] = {
    "_class_name": ("DiTTransformer2DModel", "Transformer2DModel"),  # the second is its name in older files
    "attention_bias": (True,),
    "activation_fn": tuple(ACTIVATIONS),
    "norm_type": ("ada_norm_zero",),
    "norm_elementwise_affine": (False,),
    # what files of the older class may hold
    "cross_attention_dim": (None,),
    "num_vector_embeds": (None,),
    "only_cross_attention": (False,),
    "double_self_attention": (False,),
    "use_linear_projection": (False,),
    "attention_type": ("default",),
    "caption_channels": (None,),
    "interpolation_scale": (None,),
}
FIXED = "pos_embed.pos_embed"  # a table that older files hold and that follows from the sizes


def load(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> DiT:
    """Ours, with their weights; `upcast_attention` is not followed: we attend in the weights' own type.

    Args:
        config: theirs, as `config.json` holds it; a key that is absent has their default.
        weights: theirs.

    Raises:
        ValueError: for a value or a weight that is not known here; it says which.
    """
    expect("DiT", config, KNOWN)
    named = rename({name: w for name, w in weights.items() if name != FIXED}, TABLE)
    depth = config.get("num_layers", 28)
    own = not _same(named, depth)
    if not own:
        named = {name: w for name, w in named.items() if not _embeds(name) or name.startswith("conditions.0.")}
    heads = config.get("num_attention_heads", 16)
    return fill(
        lambda: DiT(
            config.get("sample_size", 32),
            config.get("in_channels", 4),
            config.get("patch_size", 2),
            heads * config.get("attention_head_dim", 72),
            depth,
            heads,
            config.get("num_embeds_ada_norm", 1000),
            out_channels=config.get("out_channels"),
            feed_forward=ACTIVATIONS[config.get("activation_fn", "gelu-approximate")],
            own=own,
            eps=config.get("norm_eps", 1e-5),
        ),
        named,
    )


def save(module: DiT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, weights) for `config.json` and `diffusion_pytorch_model.safetensors`.

    Raises:
        ValueError: for a network that theirs cannot be: one that is told no class, one with a context, a picture that
            is not square, another feed-forward network.
    """
    made = module.arguments
    activations = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    expect("DiT", made, {"context": (None,), "feed_forward": tuple(activations), "hidden": (None, 4 * made["width"])})
    if made["classes"] is None or module.patches.size[0] != module.patches.size[1]:
        raise ValueError(f"their DiT has classes and square pictures: classes={made['classes']}, size={made['size']}")
    weights = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    if not made["own"]:
        for name in [name for name in weights if _embeds(name)]:
            for index in range(1, made["depth"]):
                weights[name.replace("conditions.0.", f"conditions.{index}.")] = weights[name].clone()
    config = {
        "_class_name": "DiTTransformer2DModel",
        "sample_size": module.patches.size[0],
        "in_channels": made["channels"],
        "out_channels": made["out_channels"],
        "patch_size": made["patch"],
        "num_attention_heads": made["heads"],
        "attention_head_dim": made["width"] // made["heads"],
        "num_layers": made["depth"],
        "num_embeds_ada_norm": made["classes"],
        "activation_fn": activations[made["feed_forward"]],
        "attention_bias": True,
        "dropout": 0.0,
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
        "norm_eps": made["eps"],
    }
    return config, rename(weights, inverse(TABLE))


def _embeds(name: str) -> bool:
    return name.startswith("conditions.")


def _same(named: Mapping[str, Tensor], depth: int) -> bool:
    """Whether all blocks embed timestep and label by equal weights."""
    first = {name: w for name, w in named.items() if name.startswith("conditions.0.")}
    return all(
        torch.equal(w, named[name.replace("conditions.0.", f"conditions.{index}.")])
        for name, w in first.items()
        for index in range(1, depth)
        if name.replace("conditions.0.", f"conditions.{index}.") in named  # a missing one is found by `fill`
    )
