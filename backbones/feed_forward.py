"""The feed-forward network of a Transformer block: each position by itself, up to a hidden width and down again.

    Plain    down(activation(up(x)))                              Vaswani et al. 2017, eq. 2
    SwiGLU   down(silu(gate(x)) * up(x))                          Shazeer 2020, eq. 6
    GEGLU    down(gelu(gate(x)) * up(x))                          Shazeer 2020, eq. 6

Key: D the width of the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

FeedForwardName = Literal["swiglu", "geglu", "gelu", "gelu-tanh", "relu", "relu2"]


def relu2(x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    """relu(x)^2 (So et al. 2021, "Primer", sec. 3)."""
    return functional.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,  # x Phi(x): Hendrycks & Gimpel 2016, sec. 2
    "gelu-tanh": partial(functional.gelu, approximate="tanh"),  # its approximation, as in GPT-2 and DiT
    "relu": torch.relu,
    "relu2": relu2,
}


class Plain(nn.Module):
    """down(activation(up(x)))."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor], *, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(self.activation(self.up(x)))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class GEGLU(nn.Module):
    """down(gelu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(functional.gelu(self.gate(x)) * self.up(x))


GATED: dict[str, type[SwiGLU] | type[GEGLU]] = {"swiglu": SwiGLU, "geglu": GEGLU}


def make(kind: FeedForwardName, width: int, hidden: int | None = None, *, bias: bool) -> Plain | SwiGLU | GEGLU:
    """The network of that name; `hidden` is by default 4 D, or for the gated ones as many weights.

    Raises:
        ValueError: for a name that does not exist.
    """
    if kind in GATED:
        return GATED[kind](width, 8 * math.ceil(width / 3) if hidden is None else hidden, bias=bias)
    if kind not in ACTIVATIONS:
        raise ValueError(f"feed-forward {kind!r}: expected {', '.join([*GATED, *ACTIVATIONS])}")
    return Plain(width, 4 * width if hidden is None else hidden, ACTIVATIONS[kind], bias=bias)
