"""One vocabulary of masks for every kind of attention: which keys a query may see.

    causal            query t sees keys 0 ... t
    padding           what fills a row up to its length is seen by none
    prefix            everybody sees the prefix, and the past (Raffel et al. 2020, fig. 3, right)
    blocks            several sequences packed into one row do not see each other
    window            only what is near (Beltagy et al. 2020, sec. 3.1)
    until             slots of a cache that have been written

Masks combine by `&`: a key is seen where both allow it. `softmax` attention hands them to torch's kernel; other kinds
ask for `matrix` or, where they know no pairs of positions, refuse what they cannot honour.

Key: B batch, H heads, T queries, S keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from backbones.shape import wrong


@dataclass(frozen=True)
class Mask:
    """Which keys a query may see.

    Attributes:
        causal: query t sees keys 0 ... t. Kept as a word, not a matrix, so that a kernel can skip the upper half.
        allowed: True where a key is seen, broadcast to [B, H, T, S]; None allows all.
    """

    causal: bool = False
    allowed: Bool[Tensor, "b h t s"] | None = None

    def __and__(self, other: Mask) -> Mask:
        if self.allowed is None or other.allowed is None:
            return Mask(self.causal or other.causal, other.allowed if self.allowed is None else self.allowed)
        return Mask(self.causal or other.causal, self.allowed & other.allowed)

    def matrix(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "b h t s"] | None:
        """The whole mask as one tensor, which broadcasts to [B, H, queries, keys]; None where all is seen."""
        if not self.causal:
            return self.allowed
        triangle = torch.ones(queries, keys, dtype=torch.bool, device=device).tril()[None, None]
        return triangle if self.allowed is None else self.allowed & triangle

    def single(self, kind: str, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "b t s"] | None:
        """`matrix` for attention that has no heads.

        Raises:
            ShapeError: where `allowed` is for other queries or keys.
            ValueError: where it differs from head to head.
        """
        if self.allowed is not None and (self.allowed.shape[2] not in (1, queries) or self.allowed.shape[3] != keys):
            raise wrong(f"{kind}: mask", self.allowed, f"[b, 1, {queries} or 1, {keys}]")
        seen = self.matrix(queries, keys, device)
        if seen is not None and seen.shape[1] != 1:
            raise ValueError(f"{kind}: mask of shape {list(seen.shape)} differs by head, expected [b, 1, T, S]")
        return None if seen is None else seen[:, 0]

    def keys(self, kind: str, batch: int, keys: int) -> Bool[Tensor, "b s"] | None:
        """Which keys are seen at all, for attention that never looks at pairs of positions (of linear cost).

        Raises:
            ShapeError: where `allowed` is not of [batch or 1, 1, 1, keys].
            ValueError: where `allowed` tells queries or heads apart (windows, blocks, prefixes): no such sum over
                keys can honour it.
        """
        if self.allowed is None:
            return None
        if self.allowed.shape[1] != 1 or self.allowed.shape[2] != 1:
            shape = list(self.allowed.shape)
            raise ValueError(
                f"{kind}: mask of shape {shape} tells queries or heads apart, expected padding [b, 1, 1, S]"
            )
        if self.allowed.shape[3] != keys or self.allowed.shape[0] not in (1, batch):
            raise wrong(f"{kind}: mask", self.allowed, f"[{batch} or 1, 1, 1, {keys}]")
        return self.allowed[:, 0, 0]


FULL = Mask()
CAUSAL = Mask(causal=True)


def padding(lengths: Int64[Tensor, "B"], total: int) -> Mask:
    """Keys 0 ... length-1 of each row are seen; what fills the row up to `total` is not."""
    return Mask(allowed=(torch.arange(total, device=lengths.device) < lengths[:, None])[:, None, None])


def prefix(lengths: Int64[Tensor, "B"], total: int) -> Mask:
    """Every query sees keys 0 ... length-1 of its row, and the past: a prompt read at once, an answer in order."""
    past = torch.ones(total, total, dtype=torch.bool, device=lengths.device).tril()
    inside = torch.arange(total, device=lengths.device) < lengths[:, None]  # [B, S]
    return Mask(allowed=(past | inside[:, None])[:, None])


def blocks(segments: Int64[Tensor, "B T"], keys: Int64[Tensor, "B S"] | None = None) -> Mask:
    """A query sees the keys of its own segment: several sequences in one row. `keys` are by default `segments`."""
    return Mask(allowed=(segments[:, :, None] == (segments if keys is None else keys)[:, None])[:, None])


def window(width: int, total: int, *, ahead: bool = False, device: torch.device | str = "cpu") -> Mask:
    """Query t sees keys t-width+1 ... t, and with `ahead` also t+1 ... t+width-1.

    Raises:
        ValueError: for a width below 1, with which a query would not see itself.
    """
    if width < 1:
        raise ValueError(f"window of width {width}: expected 1 or more, so that a query sees itself")
    place = torch.arange(total, device=device)
    behind = place[:, None] - place  # [T, S], t - s
    near = (behind < width) & (behind > -width) if ahead else (behind < width) & (behind >= 0)
    return Mask(allowed=near[None, None])


def until(positions: Int64[Tensor, "B T"], total: int) -> Mask:
    """The query at position p sees slots 0 ... p of a cache of `total` slots: causal, wherever each row has got to."""
    return Mask(allowed=(torch.arange(total, device=positions.device) <= positions[..., None])[:, None])
