"""Multi-head attention, one vocabulary of masks, and the cache that makes generation linear.

    softmax(q k^T / sqrt(d)) v      (Vaswani et al. 2017, eq. 1), by torch's own kernel `scaled_dot_product_attention`

Key: B batch, T queries, S keys, H query heads, G key-value heads (G divides H: grouped-query attention, Ainslie et
al. 2023; G = 1 is multi-query), d the width of a head, D = H d the width of the model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.positions import rotate


@dataclass(frozen=True)
class Mask:
    """Which keys a query may see. Masks combine by `&`: a key is seen where both allow it.

    Attributes:
        causal: query t sees keys 0 ... t. Kept as a word, not a matrix, so that the kernel can skip the upper half.
        allowed: True where a key is seen, broadcast to [B, H, T, S]; None allows all.
    """

    causal: bool = False
    allowed: Bool[Tensor, "b h t s"] | None = None

    def __and__(self, other: Mask) -> Mask:
        if self.allowed is None or other.allowed is None:
            return Mask(self.causal or other.causal, other.allowed if self.allowed is None else self.allowed)
        return Mask(self.causal or other.causal, self.allowed & other.allowed)


FULL = Mask()
CAUSAL = Mask(causal=True)


def padding(lengths: Int64[Tensor, "B"], total: int) -> Mask:
    """Keys 0 ... length-1 of each row are seen; what fills the row up to `total` is not."""
    return Mask(allowed=(torch.arange(total, device=lengths.device) < lengths[:, None])[:, None, None])


def until(positions: Int64[Tensor, "B T"], total: int) -> Mask:
    """The query at position p sees slots 0 ... p of a cache of `total` slots: causal, wherever each row has got to."""
    return Mask(allowed=(torch.arange(total, device=positions.device) <= positions[..., None])[:, None])


def attend(
    q: Float[Tensor, "B H T d"], k: Float[Tensor, "B G S d"], v: Float[Tensor, "B G S d"], mask: Mask = FULL
) -> Float[Tensor, "B H T d"]:
    """softmax(q k^T / sqrt(d)) v over the keys that `mask` allows; a query that may see none gets zeros."""
    allowed = mask.allowed
    if mask.causal and allowed is not None:
        allowed = allowed & torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=allowed, is_causal=mask.causal and allowed is None, enable_gqa=q.shape[1] != k.shape[1]
    )


class Cache:
    """The keys and values that one layer has computed, by slot: slot p holds position p.

    Rows fill at their own pace (each writes at its own positions), so sequences of different lengths need no
    padding on the left, and what a slot held before it was written is never seen (see `until`).
    """

    def __init__(self, keys: Float[Tensor, "B G S d"], values: Float[Tensor, "B G S d"]) -> None:
        self.keys, self.values = keys, values

    def write(
        self, positions: Int64[Tensor, "B T"], k: Float[Tensor, "B G T d"], v: Float[Tensor, "B G T d"]
    ) -> tuple[Float[Tensor, "B G S d"], Float[Tensor, "B G S d"]]:
        """Store k and v in slots `positions`, and return all slots."""
        row = torch.arange(len(positions), device=positions.device)[:, None]
        self.keys[row, :, positions] = k.transpose(1, 2)
        self.values[row, :, positions] = v.transpose(1, 2)
        return self.keys, self.values


class Attention(nn.Module):
    """Multi-head self-attention with separate projections, as in Llama.

    Args:
        width: D.
        heads: H; divides D.
        groups: G, the key-value heads; divides H. Fewer make a smaller cache.
        bias: whether the projections add one (GPT-2 does, Llama does not).

    Raises:
        ValueError: when the heads do not divide the width, or the groups the heads.
    """

    def __init__(self, width: int, heads: int, groups: int | None = None, *, bias: bool = False) -> None:
        super().__init__()
        groups = heads if groups is None else groups
        if width % heads or heads % groups:
            sizes = f"width {width}, heads {heads}, groups {groups}"
            raise ValueError(f"{sizes}: the heads must divide the width, and the groups the heads")
        self.heads, self.groups, self.head_width = heads, groups, width // heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, groups * self.head_width, bias=bias)
        self.value = nn.Linear(width, groups * self.head_width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask,
        turn: tuple[Float[Tensor, "b 1 T half"], Float[Tensor, "b 1 T half"]] | None = None,
        cache: Cache | None = None,
        positions: Int64[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from x to x, or with a `cache` to all it holds after x was stored at `positions`.

        `turn` is the (cosine, sine) of the rotary angles of x's positions.
        """
        q = self.query(x).unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)  # [B, H, T, d]
        k = self.key(x).unflatten(-1, (self.groups, self.head_width)).transpose(1, 2)  # [B, G, T, d]
        v = self.value(x).unflatten(-1, (self.groups, self.head_width)).transpose(1, 2)
        if turn is not None:
            q, k = rotate(q, *turn), rotate(k, *turn)
        if cache is not None and positions is not None:
            k, v = cache.write(positions, k, v)  # [B, G, S, d]
        return self.output(attend(q, k, v, mask).transpose(1, 2).flatten(-2))
