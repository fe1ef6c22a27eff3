"""The weights of diffusers' UNets under our names, and ours under theirs.

Those of the convolutional parts have the same names there and here. Renamed are those inside the Transformer blocks of
the conditional UNet, whose gated layer is one matrix there and two here, and whose projections in and out may be 1x1
convolutions there; ours are linear, and are saved so (`use_linear_projection`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from backbones.convert.names import inverse

INSIDE = {  # theirs, within ".transformer_blocks.", and ours, within ".stack.blocks."
    "norm1": "attention_norm",
    "attn1.to_q": "attention.query",
    "attn1.to_k": "attention.key",
    "attn1.to_v": "attention.value",
    "attn1.to_out.0": "attention.output",
    "norm2": "cross_norm",
    "attn2.to_q": "cross.query",
    "attn2.to_k": "cross.key",
    "attn2.to_v": "cross.value",
    "attn2.to_out.0": "cross.output",
    "norm3": "feed_forward_norm",
    "ff.net.2": "feed_forward.down",
}
GATED = "ff.net.0.proj"  # up and gate, one above the other
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # in files of 2022


def ours(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their weights under our names."""
    named: dict[str, Tensor] = {}
    for name, weight in weights.items():
        outer, _, inner = name.partition(".transformer_blocks.")
        index, _, layer = inner.partition(".")
        part, _, last = layer.rpartition(".")
        if inner and part == GATED:
            up, gate = weight.chunk(2)
            named[f"{outer}.stack.blocks.{index}.feed_forward.up.{last}"] = up
            named[f"{outer}.stack.blocks.{index}.feed_forward.gate.{last}"] = gate
        elif inner:
            named[f"{outer}.stack.blocks.{index}.{INSIDE.get(part, part)}.{last}"] = weight
        elif re.search(r"\.proj_(in|out)\.weight$", name):
            named[name] = weight.flatten(1)  # a 1x1 convolution, or already a linear map
        else:
            old = re.fullmatch(r"(.*attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)", name)
            named[old[1] + OLD[old[2]] + old[3] if old else name] = weight
    return named


def theirs(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Ours under theirs: the inverse of `ours`, with linear projections."""
    inside = inverse(INSIDE)
    named: dict[str, Tensor] = {}
    for name, weight in weights.items():
        outer, _, inner = name.partition(".stack.blocks.")
        index, _, layer = inner.partition(".")
        part, _, last = layer.rpartition(".")
        if not inner:
            named[name] = weight.detach()
        elif part == "feed_forward.up":
            gate = weights[name.replace(".up.", ".gate.")]
            named[f"{outer}.transformer_blocks.{index}.{GATED}.{last}"] = torch.cat([weight, gate]).detach()
        elif part != "feed_forward.gate":
            named[f"{outer}.transformer_blocks.{index}.{inside[part]}.{last}"] = weight.detach()
    return named
