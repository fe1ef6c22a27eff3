"""Hugging Face's `ViTModel` and `ViTForImageClassification` <-> `backbones.vision.ViT`.

Their weights have two sets of names: those that files hold, and those of the modules since transformers 5. `load`
takes either; `save` writes the first, which `from_pretrained` of every version reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from backbones.convert.names import inverse, rename
from backbones.convert.peers import expect, fill
from backbones.feed_forward import FeedForwardName
from backbones.vision import ViT

COMMON = {
    "embeddings.cls_token": "class_token",
    "embeddings.position_embeddings": "stack.positions.table.weight",
    "embeddings.patch_embeddings.projection": "patches.conv",
    "layernorm": "stack.norm",
    "pooler.dense": "pooler",
    "classifier": "head",
}
FILE = {
    **COMMON,
    "encoder.layer.#.attention.attention.query": "stack.blocks.#.attention.query",
    "encoder.layer.#.attention.attention.key": "stack.blocks.#.attention.key",
    "encoder.layer.#.attention.attention.value": "stack.blocks.#.attention.value",
    "encoder.layer.#.attention.output.dense": "stack.blocks.#.attention.output",
    "encoder.layer.#.intermediate.dense": "stack.blocks.#.feed_forward.up",
    "encoder.layer.#.output.dense": "stack.blocks.#.feed_forward.down",
    "encoder.layer.#.layernorm_before": "stack.blocks.#.attention_norm",
    "encoder.layer.#.layernorm_after": "stack.blocks.#.feed_forward_norm",
}
MODULE = {
    "layers.#.attention.q_proj": "stack.blocks.#.attention.query",
    "layers.#.attention.k_proj": "stack.blocks.#.attention.key",
    "layers.#.attention.v_proj": "stack.blocks.#.attention.value",
    "layers.#.attention.o_proj": "stack.blocks.#.attention.output",
    "layers.#.mlp.fc1": "stack.blocks.#.feed_forward.up",
    "layers.#.mlp.fc2": "stack.blocks.#.feed_forward.down",
    "layers.#.layernorm_before": "stack.blocks.#.attention_norm",
    "layers.#.layernorm_after": "stack.blocks.#.feed_forward_norm",
}
ACTIVATIONS: dict[str, FeedForwardName] = {
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "relu": "relu",
}
KNOWN: dict[str, tuple[Any, ...]] = {
    "model_type": ("vit",),
    "hidden_act": tuple(ACTIVATIONS),
    "qkv_bias": (True,),
    "pooler_act": ("tanh",),
}


def load(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ViT:
    """Ours, with their weights: logits where there is a classifier, else pooled features, else the class token's.

    Args:
        config: theirs, as `config.json` holds it; a key that is absent has their default.
        weights: theirs, by either set of names.

    Raises:
        ValueError: for a value or a weight that is not known here; it says which.
    """
    expect("ViT", config, KNOWN)
    named = rename({name.removeprefix("vit."): w for name, w in weights.items()}, FILE | MODULE)
    if "head.weight" in named and "pooler.weight" in named:
        raise ValueError("weights of both a classifier and a pooler: theirs reads the class token itself")
    table = "stack.positions.table.weight"
    if table not in named:
        raise ValueError("ViT: weight 'embeddings.position_embeddings' is missing")
    named[table] = named[table][0]  # [1, T, D] in theirs
    size, patch = config.get("image_size", 224), config.get("patch_size", 16)
    if not isinstance(patch, int):
        raise ValueError(f"ViT: patch_size is {patch!r}; known here: one number, for square patches")
    return fill(
        lambda: ViT(
            size if isinstance(size, int) else (size[0], size[1]),
            config.get("num_channels", 3),
            patch,
            config.get("hidden_size", 768),
            config.get("num_hidden_layers", 12),
            config.get("num_attention_heads", 12),
            len(named["head.weight"]) if "head.weight" in named else None,
            hidden=config.get("intermediate_size", 3072),
            pooler=len(named["pooler.weight"]) if "pooler.weight" in named else None,
            feed_forward=ACTIVATIONS[config.get("hidden_act", "gelu")],
            eps=config.get("layer_norm_eps", 1e-12),
        ),
        named,
    )


def save(module: ViT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, weights) for `config.json` and `model.safetensors`, in the names that files hold.

    Raises:
        ValueError: for a network that theirs cannot be: mean pooling, other positions, another feed-forward network,
            a head above a pooler.
    """
    made = module.arguments
    activations = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    allowed = {"pool": ("class",), "positions": ("learned",), "feed_forward": tuple(activations)}
    expect("ViT", made, allowed if module.pooler is None else allowed | {"classes": (None,)})
    weights = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    weights["stack.positions.table.weight"] = weights["stack.positions.table.weight"][None]
    named = rename(weights, inverse(FILE))
    config: dict[str, Any] = {
        "model_type": "vit",
        "architectures": ["ViTModel" if module.head is None else "ViTForImageClassification"],
        "image_size": made["size"],
        "patch_size": made["patch"],
        "num_channels": made["channels"],
        "hidden_size": made["width"],
        "num_hidden_layers": made["depth"],
        "num_attention_heads": made["heads"],
        "intermediate_size": made["hidden"] or 4 * made["width"],
        "hidden_act": activations[made["feed_forward"]],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": made["eps"],
        "qkv_bias": True,
    }
    if module.pooler is not None:
        config["pooler_output_size"] = made["pooler"]
    if module.head is None:
        return config, named
    labels = [f"LABEL_{k}" for k in range(module.head.out_features)]
    config |= {"id2label": {str(k): name for k, name in enumerate(labels)}}
    config |= {"label2id": {name: k for k, name in enumerate(labels)}}
    return config, {name if name.startswith("classifier.") else f"vit.{name}": w for name, w in named.items()}
