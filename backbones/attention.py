"""Multi-head softmax attention, to itself or to a context, and the cache that makes generation linear.

    softmax(q k^T / sqrt(d) + bias) v     (Vaswani et al. 2017, eq. 1), by torch's own `scaled_dot_product_attention`

Key: B batch, T queries, S keys, H query heads, G key-value heads (G divides H: grouped-query attention, Ainslie et
al. 2023; G = 1 is multi-query, Shazeer 2019), d the width of a head, D the width of the model.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.continuations import Reading
from backbones.masks import FULL, Mask
from backbones.positions import Turn, rotate
from backbones.shape import wrong


def attend(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B G S d"],
    v: Float[Tensor, "B G S e"],
    mask: Mask = FULL,
    bias: Float[Tensor, "b h T S"] | None = None,
) -> Float[Tensor, "B H T e"]:
    """softmax(q k^T / sqrt(d) + bias) v over the keys that `mask` allows; a query that may see none gets zeros."""
    if isinstance(mask, Reading) and mask.row is not None and bias is None:
        return mask.row.attend(q, k, v)
    causal, seen = mask.causal, mask.allowed
    if isinstance(mask, Reading):
        seen = mask.matrix(q.shape[2], k.shape[2], q.device)
    if causal and (seen is not None or bias is not None):
        causal, seen = False, mask.matrix(q.shape[2], k.shape[2], q.device)
    if bias is not None:
        seen = bias if seen is None else bias.masked_fill(~seen, -torch.inf)
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
    )


class Cache:
    """The keys and values that one layer has computed, by slot: slot p holds position p.

    Rows fill at their own pace (each writes at its own positions), so sequences of different lengths need no
    padding on the left, and what a slot held before it was written is never seen (see `masks.until`).
    """

    def __init__(self, keys: Float[Tensor, "B G S d"], values: Float[Tensor, "B G S d"]) -> None:
        self.keys, self.values = keys, values

    def first(self, slots: int) -> Cache:
        """The first `slots` slots: what is written to them is written here."""
        return Cache(self.keys[:, :, :slots], self.values[:, :, :slots])

    def write(
        self, positions: Int64[Tensor, "b T"], k: Float[Tensor, "B G T d"], v: Float[Tensor, "B G T d"]
    ) -> tuple[Float[Tensor, "B G S d"], Float[Tensor, "B G S d"]]:
        """Store k and v in slots `positions`, and return all slots; positions [1, T] are those of every row.

        What is stored has the cache's type, also under autocast, where k and v come in a lower one.
        """
        k, v = k.to(self.keys.dtype), v.to(self.values.dtype)
        if len(positions) == 1:
            return self.keys.index_copy_(2, positions[0], k), self.values.index_copy_(2, positions[0], v)
        row = torch.arange(len(positions), device=positions.device)[:, None]
        self.keys[row, :, positions] = k.transpose(1, 2)
        self.values[row, :, positions] = v.transpose(1, 2)
        return self.keys, self.values


class Attention(nn.Module):
    """Multi-head attention with separate projections, as in Llama.

    Args:
        width: D.
        heads: H; divides D.
        groups: G, the key-value heads; divides H. Fewer make a smaller cache.
        bias: whether the projections add one (GPT-2 does, Llama does not).
        context: features of what keys and values are read from, by default D: self-attention.

    Raises:
        ValueError: when the heads do not divide the width, or the groups the heads.
    """

    attend = staticmethod(attend)  # `backbones.cpu.swift` puts another in its place

    def __init__(
        self, width: int, heads: int, groups: int | None = None, *, bias: bool = False, context: int | None = None
    ) -> None:
        super().__init__()
        groups = heads if groups is None else groups
        if width % heads or heads % groups:
            sizes = f"width {width}, heads {heads}, groups {groups}"
            raise ValueError(f"{sizes}: the heads must divide the width, and the groups the heads")
        self.width, self.heads, self.groups, self.head_width = width, heads, groups, width // heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(context or width, groups * self.head_width, bias=bias)
        self.value = nn.Linear(context or width, groups * self.head_width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask = FULL,
        turn: Turn | None = None,
        bias: Float[Tensor, "b h T S"] | None = None,
        cache: Cache | None = None,
        positions: Int64[Tensor, "b T *axes"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from x to x, or with a `cache` to all it holds after x was stored at `positions`.

        `turn` is what `rotate` turns x's positions by; `bias` is added to the logits.

        Raises:
            ShapeError: for another rank or width.
            ValueError: for a cache without the positions to store at.
        """
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise wrong("Attention: x", x, f"[B, T, {self.width}]")
        if cache is not None and positions is None:
            raise ValueError("Attention: a cache but no positions; expected the slots to store x in, [B, T]")
        q, (k, v) = self._split(self.query(x), self.heads), self.read(x)
        if turn is not None:
            q, k = rotate(q, *turn), rotate(k, *turn)
        if cache is not None and positions is not None:
            k, v = cache.write(positions, k, v)  # [B, G, S, d]
        return self._join(self.attend(q, k, v, mask, bias))

    def read(self, context: Float[Tensor, "B S C"]) -> tuple[Float[Tensor, "B G S d"], Float[Tensor, "B G S d"]]:
        """Keys and values of a context: computed once, looked at by many queries. Raises ShapeError."""
        if context.ndim != 3 or context.shape[-1] != self.key.in_features:
            raise wrong("Attention: context", context, f"[B, S, {self.key.in_features}]")
        return self._split(self.key(context), self.groups), self._split(self.value(context), self.groups)

    def cross(
        self,
        x: Float[Tensor, "B T D"],
        memory: tuple[Float[Tensor, "B G S d"], Float[Tensor, "B G S d"]],
        mask: Mask = FULL,
    ) -> Float[Tensor, "B T D"]:
        """Attend from x to what `read` made of a context of as many rows. Raises ShapeError."""
        if x.ndim != 3 or x.shape[-1] != self.width or len(x) != len(memory[0]):
            raise wrong("Attention: x", x, f"[{len(memory[0])}, T, {self.width}], a row for each of the context")
        return self._join(self.attend(self._split(self.query(x), self.heads), *memory, mask))

    def _split(self, x: Float[Tensor, "B T HD"], heads: int) -> Float[Tensor, "B H T d"]:
        return x.view(*x.shape[:-1], heads, self.head_width).transpose(1, 2)

    def _join(self, x: Float[Tensor, "B H T d"]) -> Float[Tensor, "B T D"]:
        return self.output(x.transpose(1, 2).flatten(-2))
