"""What a block asks of any kind of attention: one face, and an answer by name from who cannot do what it is asked.

    Attention                              mask, turn, bias, cache
    SlidingAttention                       mask (causal, padding), turn
    LinearAttention                        mask (causal, padding)
    GatedAttention                         mask
    MixedChunkAttention                    mask (causal, padding)

Key: B batch, T queries, S keys, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor

from backbones.attention import Cache
from backbones.masks import Mask
from backbones.positions import Turn


@runtime_checkable
class Mixer(Protocol):
    """A module that mixes positions.

    `forward` honours the mask, the turn, the bias and the cache, or raises a ValueError that says which it cannot.
    The last layer is called "output" or "down", so that the rule for first weights (`backbones.stack`) finds it.
    """

    width: int
    __call__: Callable[..., Any]

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask = ...,
        turn: Turn | None = ...,
        bias: Float[Tensor, "b h T S"] | None = ...,
        cache: Cache | None = ...,
        positions: Int64[Tensor, "b T *axes"] | None = ...,
    ) -> Float[Tensor, "B T D"]: ...


@runtime_checkable
class Keeper(Mixer, Protocol):
    """A mixer that can keep keys and values of the past: G groups of them, d wide."""

    groups: int
    head_width: int


def refuse(kind: str, **given: object) -> None:
    """Raise ValueError for the first thing `given` to a kind of attention that cannot honour it."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{kind}: {name} of {type(value).__name__}; it knows none, expected None")
