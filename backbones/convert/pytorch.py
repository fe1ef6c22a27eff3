"""torch's own attention and Transformer layers <-> ours.

    nn.MultiheadAttention                               attention.Attention
    nn.TransformerEncoderLayer, TransformerDecoderLayer stack.Block
    nn.TransformerEncoder, TransformerDecoder           stack.Stack, without positions
    the two halves of nn.Transformer                    two Stacks (`peers.under(weights, "encoder")`, "decoder")

torch has no configuration files: a config here is the keywords of the constructor, for a stack those of its layer and
`num_layers`. Saving is the other way round: `nn.MultiheadAttention(**config)`. Inputs are always [B, T, D]
(`batch_first`), and nothing is dropped out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from backbones import feed_forward as networks
from backbones.attention import Attention
from backbones.convert.peers import Weights, beneath, expect, fill, need, under
from backbones.feed_forward import Plain
from backbones.positions import Positions
from backbones.stack import Block, Stack

ENCODER = {
    "self_attn": "attention",
    "norm1": "attention_norm",
    "linear1": "feed_forward.up",
    "linear2": "feed_forward.down",
    "norm2": "feed_forward_norm",
}
DECODER = {
    "self_attn": "attention",
    "norm1": "attention_norm",
    "multihead_attn": "cross",
    "norm2": "cross_norm",
    "linear1": "feed_forward.up",
    "linear2": "feed_forward.down",
    "norm3": "feed_forward_norm",
}
ATTENTIONS = ("self_attn", "multihead_attn")
ACTIVATIONS: dict[Callable[..., Tensor], str] = {torch.relu: "relu", functional.gelu: "gelu"}
PARTS = ("query", "key", "value")


def load_attention(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Attention:
    """nn.MultiheadAttention -> Attention, to itself or, where `kdim` says so, to a context of another width.

    Raises:
        ValueError: for added key biases or zero attention, keys and values of different widths, or weights that do
            not fit.
    """
    need("nn.MultiheadAttention", config, ("embed_dim", "num_heads"))
    expect("nn.MultiheadAttention", config, {"add_bias_kv": (False,), "add_zero_attn": (False,)})
    width = config["embed_dim"]
    context = config.get("kdim") or width
    expect("nn.MultiheadAttention", {"vdim": config.get("vdim") or width}, {"vdim": (context,)})
    return fill(
        lambda: Attention(width, config["num_heads"], bias=config.get("bias", True), context=context),
        _apart(weights),
    )


def save_attention(module: Attention) -> tuple[dict[str, Any], Weights]:
    """Attention -> the keywords and the state dict of nn.MultiheadAttention.

    Raises:
        ValueError: for grouped heads, which torch's module does not know.
    """
    if module.groups != module.heads:
        raise ValueError(f"nn.MultiheadAttention: {module.groups} groups; known here: as many as heads, {module.heads}")
    context = module.key.in_features
    config = {"embed_dim": module.width, "num_heads": module.heads, "bias": module.query.bias is not None}
    config |= {"kdim": context, "vdim": context, "batch_first": True}
    return config, _fused(module.state_dict())


def load_block(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Block:
    """nn.TransformerEncoderLayer, or by its weights nn.TransformerDecoderLayer, -> Block.

    Raises:
        ValueError: for an activation that is neither relu nor gelu, or weights that do not fit.
    """
    decoder = any(name.startswith("multihead_attn.") for name in weights)
    return fill(lambda: _block(config, decoder=decoder), _renamed(weights, decoder=decoder))


def save_block(block: Block) -> tuple[dict[str, Any], Weights]:
    """Block -> the keywords and the state dict of torch's encoder layer, or decoder layer if it attends to a context.

    Raises:
        ValueError: for what torch's layers lack: grouped heads, gates, modulation, other norms and activations.
    """
    forward, norm = block.feed_forward, block.attention_norm
    if not isinstance(forward, Plain) or forward.activation not in ACTIVATIONS:
        raise ValueError(f"nn.Transformer layer: feed-forward {forward}; known here: plain, with relu or gelu")
    if not isinstance(norm, nn.LayerNorm) or block.modulation is not None:
        raise ValueError(f"nn.Transformer layer: norm {norm}; known here: LayerNorm without modulation")
    attention = block.attention
    if not isinstance(attention, Attention):
        raise ValueError(f"nn.Transformer layer: attention {type(attention).__name__}; known here: Attention")
    named: Weights = {}
    for theirs, ours in (ENCODER if block.cross is None else DECODER).items():
        part = block.get_submodule(ours)
        named |= beneath(save_attention(part)[1] if isinstance(part, Attention) else part.state_dict(), theirs)
    config = {
        "d_model": attention.width,
        "nhead": attention.heads,
        "dim_feedforward": forward.up.out_features,
        "dropout": 0.0,
        "activation": ACTIVATIONS[forward.activation],
        "layer_norm_eps": norm.eps,
        "batch_first": True,
        "norm_first": block.order == "pre",
        "bias": attention.query.bias is not None,
    }
    return config, named


def load_stack(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Stack:
    """nn.TransformerEncoder or, by its weights, nn.TransformerDecoder -> Stack without positions.

    The last norm is there if its weights are. Raises ValueError as `load_block` does.
    """
    need("nn.Transformer", config, ("num_layers",))
    decoder = any(".multihead_attn." in name for name in weights)
    named = beneath(under(weights, "norm"), "norm")
    for layer in range(config["num_layers"]):
        named |= beneath(_renamed(under(weights, f"layers.{layer}"), decoder=decoder), f"blocks.{layer}")
    last = (lambda: _norm(config)) if "norm.weight" in weights else (lambda: None)
    return fill(
        lambda: Stack([_block(config, decoder=decoder) for _ in range(config["num_layers"])], Positions(), last()),
        named,
    )


def save_stack(stack: Stack) -> tuple[dict[str, Any], Weights]:
    """Stack -> the keywords of a layer with `num_layers`, and the state dict of the whole. Raises as `save_block`."""
    if type(stack.positions) is not Positions:
        raise ValueError(f"nn.Transformer: positions {type(stack.positions).__name__}; known here: none")
    saved = [save_block(block) for block in stack.layers]
    named = beneath(stack.norm.state_dict(), "norm")
    for layer, (_, weights) in enumerate(saved):
        named |= beneath(weights, f"layers.{layer}")
    return saved[0][0] | {"num_layers": len(saved)}, named


def _block(config: Mapping[str, Any], *, decoder: bool) -> Block:
    need("nn.Transformer layer", config, ("d_model", "nhead"))
    expect("nn.Transformer layer", config, {"activation": ("relu", "gelu")})
    width, heads, bias = config["d_model"], config["nhead"], config.get("bias", True)
    forward = networks.make(config.get("activation", "relu"), width, config.get("dim_feedforward", 2048), bias=bias)
    return Block(
        Attention(width, heads, bias=bias),
        forward,
        lambda: _norm(config),
        order="pre" if config.get("norm_first", False) else "post",
        cross=Attention(width, heads, bias=bias) if decoder else None,
    )


def _norm(config: Mapping[str, Any]) -> nn.LayerNorm:
    return nn.LayerNorm(config["d_model"], config.get("layer_norm_eps", 1e-5), bias=config.get("bias", True))


def _renamed(weights: Mapping[str, Tensor], *, decoder: bool) -> Weights:
    named: Weights = {}
    for theirs, ours in (DECODER if decoder else ENCODER).items():
        part = under(weights, theirs)
        named |= beneath(_apart(part) if theirs in ATTENTIONS else part, ours)
    return named


def _apart(weights: Mapping[str, Tensor]) -> Weights:
    """torch's names of attention -> ours: one matrix for queries, keys and values becomes three."""
    named: Weights = {}
    for name, tensor in weights.items():
        if name in ("in_proj_weight", "in_proj_bias"):
            kind = name.removeprefix("in_proj_")
            named |= {f"{part}.{kind}": piece for part, piece in zip(PARTS, tensor.chunk(3), strict=True)}
        else:
            named[name.replace("out_proj.", "output.").replace("_proj_weight", ".weight")] = tensor
    return {_full(name): tensor for name, tensor in named.items()}


def _full(name: str) -> str:
    return {"q.weight": "query.weight", "k.weight": "key.weight", "v.weight": "value.weight"}.get(name, name)


def _fused(weights: Mapping[str, Tensor]) -> Weights:
    """Our names of attention -> torch's: one matrix where keys and values are as wide as queries, else three."""
    named = {f"out_proj.{name}": tensor for name, tensor in under(weights, "output").items()}
    if "query.bias" in weights:
        named["in_proj_bias"] = torch.cat([weights[f"{part}.bias"] for part in PARTS])
    matrices = [weights[f"{part}.weight"] for part in PARTS]
    if len({tuple(matrix.shape) for matrix in matrices}) == 1:
        return named | {"in_proj_weight": torch.cat(matrices)}
    return named | {f"{part[0]}_proj_weight": matrix for part, matrix in zip(PARTS, matrices, strict=True)}
