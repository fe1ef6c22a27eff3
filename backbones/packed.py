"""The same Transformer, its weights laid out for many products of few rows: what generation is made of.

A step of generation multiplies every weight by one row for each text. For one row MKL reads a tall matrix fastest
when it is transposed: 25 GB/s against 8 where it does not fit the cache; a wide one it reads well as it is. Several
rows are multiplied fastest by oneDNN, from blocks that it orders itself, once. The projections that read the same
vector become one product: queries, keys and values (which are then turned together), gate and up. Norms, embeddings
and what is too small to gain are shared with the model; the rest is a copy, so a packed model takes its memory twice.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.attention import Attention, Cache, attend
from backbones.feed_forward import GEGLU, SwiGLU
from backbones.masks import FULL, Mask
from backbones.positions import Turn, rotate
from backbones.product import LARGE, able, multiply
from backbones.transformer import Transformer

ROW = 2**14  # weights from which one row gains by the transposed matrix, where it is tall


class Packed(nn.Module):
    """x W^T + bias for x of about `rows` rows in all. A copy of W, without gradients."""

    def __init__(self, weight: Float[Tensor, "N K"], bias: Float[Tensor, "N"] | None, rows: int) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.rows, self.bias = rows, bias
        self.weight = weight.t().contiguous().t() if rows == 1 else _blocks(weight, rows)

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        return (functional.linear if self.rows == 1 else multiply)(x, self.weight, self.bias)


def _blocks(weight: Tensor, rows: int) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def pays(layers: Sequence[nn.Linear | nn.Embedding], rows: int) -> bool:
    """Whether packing weights [N, K] that read the same vector makes products of so many rows faster."""
    weights = [layer.weight for layer in layers]
    size, tall = sum(w.numel() for w in weights), sum(len(w) for w in weights) > weights[0].shape[1]
    return all(able(w) for w in weights) and (tall and size >= ROW if rows == 1 else size >= LARGE)


def _together(layers: Sequence[nn.Linear], rows: int) -> nn.Module:
    """One product for layers that read the same vector, where it pays: their outputs follow each other."""
    if len(layers) == 1 and not pays(layers, rows):
        return layers[0]
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    weight = torch.cat([layer.weight.detach() for layer in layers])
    return Packed(weight, torch.cat(biases) if biases else None, rows)


class PackedAttention(nn.Module):
    """`Attention` to itself: one projection, and queries and keys turned together."""

    def __init__(self, attention: Attention, rows: int) -> None:
        super().__init__()
        self.width, self.heads, self.groups = attention.width, attention.heads, attention.groups
        self.head_width = attention.head_width
        self.project = _together([attention.query, attention.key, attention.value], rows)
        self.output = _together([attention.output], rows)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask = FULL,
        turn: Turn | None = None,
        bias: Float[Tensor, "b h T S"] | None = None,
        cache: Cache | None = None,
        positions: Int64[Tensor, "b T *axes"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        parts = self.project(x).view(*x.shape[:2], -1, self.head_width).transpose(1, 2)  # [B, H + 2 G, T, d]
        looks, v = parts.split([self.heads + self.groups, self.groups], dim=1)
        q, k = (looks if turn is None else rotate(looks, *turn)).split([self.heads, self.groups], dim=1)
        if cache is not None and positions is not None:
            k, v = cache.write(positions, k, v)
        return self.output(attend(q, k, v, mask, bias).transpose(1, 2).flatten(-2))


class PackedGate(nn.Module):
    """`SwiGLU` or `GEGLU`: gate and up by one product."""

    def __init__(self, network: SwiGLU | GEGLU, rows: int) -> None:
        super().__init__()
        self.activation = functional.silu if isinstance(network, SwiGLU) else functional.gelu
        self.project = _together([network.gate, network.up], rows)
        self.down = _together([network.down], rows)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        gate, up = self.project(x).chunk(2, dim=-1)
        return self.down(self.activation(gate) * up)


@torch.no_grad()
def packed(model: Transformer, rows: int) -> Transformer:
    """`model` for steps of about `rows` positions in all (any number works): equal up to rounding, without gradients.

    Whoever trains the model packs it again. Where nothing gains, it is the model itself.
    """
    same: dict[int, object] = {}
    within: set[nn.Module] = set()  # what was packed with the module that holds it
    for module in model.modules():
        if isinstance(module, Attention) and pays([module.query, module.key, module.value], rows):
            same[id(module)] = PackedAttention(module, rows)
            within.update(module.children())
        elif isinstance(module, SwiGLU | GEGLU) and pays([module.gate, module.up], rows):
            same[id(module)] = PackedGate(module, rows)
            within.update(module.children())
        elif isinstance(module, nn.Linear) and module not in within and pays([module], rows):
            same[id(module)] = Packed(module.weight.detach(), module.bias, rows)
    tied = model.head is None and pays([model.embedding], rows)
    if not same and not tied:
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    made = copy.deepcopy(model, {**shared, **same})  # what these name is taken from there
    if tied:
        made.head = Packed(model.embedding.weight.detach(), None, rows)
    return made
