"""Sliding-window attention at the cost of its window: each position looks at the `window` nearest, itself among them.

The sequence is cut into chunks as long as the window. What a chunk may see lies in itself and in the chunk before it
(and after it, with `ahead`), so that torch's kernel is given n / w small problems of w queries and 2 w (3 w) keys: n w
pairs instead of n^2. Source: Beltagy, Peters & Cohan 2020, "Longformer", sec. 3.1 and appendix A.

Key: B batch, H query heads, G key-value heads, T positions, w the window, N = ceil(T / w) chunks, d width of a head.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.attention import Cache, attend
from backbones.masks import FULL, Mask
from backbones.masks import window as near
from backbones.mixer import refuse
from backbones.positions import Turn, rotate
from backbones.shape import wrong


def slide(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B G T d"],
    v: Float[Tensor, "B G T e"],
    window: int,
    mask: Mask = FULL,
    *,
    ahead: bool = False,
) -> Float[Tensor, "B H T e"]:
    """`attend` under `masks.window(window, T, ahead=ahead) & mask`, at a cost of T w.

    Raises:
        ShapeError: for a mask of other keys.
        ValueError: for a window below 1, or a mask of pairs of positions: the window is the only one it knows.
    """
    ahead = ahead and not mask.causal
    length, spans = q.shape[2], 3 if ahead else 2
    band = near(window, spans * window, ahead=ahead, device=q.device).allowed  # refuses a window below 1
    total = length + -length % window  # whole chunks
    # In a piece of `spans` windows the second one asks, and every piece sees alike but for what lies outside.
    assert band is not None
    seen = mask.keys("sliding window attention", len(q), length)
    seen = torch.ones(1, length, dtype=torch.bool, device=q.device) if seen is None else seen
    edges = (window, total - length + (window if ahead else 0))
    inside = functional.pad(seen, edges).unfold(1, spans * window, window)  # [b, N, spans w]
    allowed = band[:, :, window : 2 * window] & inside[:, :, None]  # [b, N, w, spans w]
    allowed = allowed.expand(len(q), -1, -1, -1).flatten(0, 1)[:, None]  # [B N, 1, w, spans w]

    pieces = functional.pad(q, (0, 0, 0, total - length)).reshape(
        *q.shape[:2], -1, window, q.shape[-1]
    )  # [B, H, N, w, d]
    k, v = (functional.pad(x, (0, 0, *edges)).unfold(2, spans * window, window).mT for x in (k, v))
    q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (pieces, k, v))  # [B N, heads, w or spans w, *]
    out = attend(q, k, v, Mask(allowed=allowed))  # [B N, H, w, e]
    return out.view(-1, total // window, *out.shape[1:]).transpose(1, 2).flatten(2, 3)[:, :, :length]


class SlidingAttention(nn.Module):
    """Multi-head attention in a window, with the projections of `attention.Attention` under the same names.

    Args:
        width: D.
        heads: H; divides D.
        window: how many positions one sees, itself and those before it. Larger sees further, and costs as much more.
        groups: G, the key-value heads; divides H; by default H.
        ahead: whether it also sees as far forward.
        bias: whether the projections add one.

    Raises:
        ValueError: for a window below 1, heads that do not divide the width, or groups that do not divide the heads.
    """

    def __init__(
        self, width: int, heads: int, window: int, groups: int | None = None, *, ahead: bool = False, bias: bool = False
    ) -> None:
        super().__init__()
        groups = heads if groups is None else groups
        if width % heads or heads % groups or window < 1:
            sizes = f"width {width}, heads {heads}, groups {groups}, window {window}"
            raise ValueError(f"{sizes}: heads must divide the width, groups the heads, and the window be 1 or more")
        self.width, self.heads, self.groups, self.window, self.ahead = width, heads, groups, window, ahead
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, groups * (width // heads), bias=bias)
        self.value = nn.Linear(width, groups * (width // heads), bias=bias)
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
        """Attend from x to what of x is near, and allowed by a mask that is causal, padding or both.

        Near is counted in places of the row; what is told of `positions` is told by `turn` alone, as in `Attention`.

        Raises:
            ShapeError: for another width, or a mask of other keys.
            ValueError: for a mask that tells queries or heads apart, other than by `causal`; for a bias or a cache.
        """
        refuse("sliding window attention", bias=bias, cache=cache)
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise wrong("SlidingAttention: x", x, f"[B, T, {self.width}]")
        heads = (self.heads, self.groups, self.groups)
        layers = (self.query, self.key, self.value)
        q, k, v = (f(x).unflatten(-1, (h, -1)).transpose(1, 2) for f, h in zip(layers, heads, strict=True))
        if turn is not None:
            q, k = rotate(q, *turn), rotate(k, *turn)
        out = slide(q, k, v, self.window, mask, ahead=self.ahead)
        return self.output(out.transpose(1, 2).flatten(-2))
