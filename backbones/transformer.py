"""The Transformer: attention mixes positions, a feed-forward network mixes features, and each adds to what was there.

    x <- x + attention(norm(x));   x <- x + feed_forward(norm(x))       (pre-norm: Xiong et al. 2020, fig. 1b)

With the defaults (RMS norm, rotary positions, SwiGLU, no biases) a block is Llama's (Touvron et al. 2023, sec. 2.2);
with `norm="layer", feed_forward="gelu", positions="learned", bias=True` it is GPT-2's.

`forward` ends at the hidden states, and `logits` is a call of its own: who needs the logits of few positions only
(a preference loss, a generator) computes only those, and [B, T, V] need never exist.

Weights start as N(0, 2 / (5 D)) (Nguyen & Salazar 2019, "Transformers without tears": SmallInit), and the
two outputs of each block that add to the residual stream are divided by sqrt(2 L), L the depth, so that its variance
does not grow with depth (GPT-2: Radford et al. 2019, sec. 2.3); biases are 0, norms 1. At GPT-2's width of 768 the
deviation is 0.023 to GPT-2's own 0.02. At the widths of this lab a fixed 0.02 would be several times too small: with
it a model of D = 64 needed some 1.7 times the updates to the same loss on mazes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.attention import CAUSAL, Attention, Cache, Mask, until
from backbones.positions import Learned, Rotary, sinusoidal


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (Shazeer 2020, eq. 6)."""

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(functional.silu(self.gate(x)) * self.up(x))


class GELU(nn.Module):
    """down(gelu(up(x))) with the tanh approximation of GPT-2 (Hendrycks & Gimpel 2016, sec. 2)."""

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return self.down(functional.gelu(self.up(x), approximate="tanh"))


NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "rms": lambda width, eps: nn.RMSNorm(width, eps=eps),  # Zhang & Sennrich 2019
    "layer": lambda width, eps: nn.LayerNorm(width, eps=eps),  # Ba et al. 2016
}
FEED_FORWARDS: dict[str, type[SwiGLU] | type[GELU]] = {"swiglu": SwiGLU, "gelu": GELU}


class Block(nn.Module):
    """One layer: pre-norm attention and pre-norm feed-forward, each added to the stream."""

    def __init__(self, attention: Attention, feed_forward: SwiGLU | GELU, norms: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.attention, self.feed_forward = attention, feed_forward
        self.attention_norm, self.feed_forward_norm = norms

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask,
        turn: tuple[Tensor, Tensor] | None,
        cache: Cache | None,
        positions: Int64[Tensor, "B T"],
    ) -> Float[Tensor, "B T D"]:
        x = x + self.attention(self.attention_norm(x), mask, turn, cache, positions)
        return x + self.feed_forward(self.feed_forward_norm(x))


class Transformer(nn.Module):
    """A causal decoder over tokens.

    Args:
        vocabulary: V, the number of tokens.
        width: D, the features of a position.
        depth: L, the number of blocks.
        heads: H, attention heads; divides the width.
        groups: key-value heads, by default as many as heads.
        hidden: inner width of the feed-forward; by default 4 D, or for SwiGLU 8/3 D rounded up to a multiple of 8,
            which has as many weights.
        length: the longest sequence, which only learned positions need.
        norm: "rms" or "layer".
        feed_forward: "swiglu" or "gelu".
        positions: "rotary", "learned" or "sinusoidal".
        theta: base of the rotary and sinusoidal frequencies.
        bias: whether linear layers add one.
        tied: whether the output reads with the embedding's own matrix (Press & Wolf 2017).
        eps: added to the variance in the norms.

    Raises:
        ValueError: when sizes do not divide, or learned positions lack a length.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        groups: int | None = None,
        hidden: int | None = None,
        length: int | None = None,
        norm: Literal["rms", "layer"] = "rms",
        feed_forward: Literal["swiglu", "gelu"] = "swiglu",
        positions: Literal["rotary", "learned", "sinusoidal"] = "rotary",
        theta: float = 10_000.0,
        bias: bool = False,
        tied: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if hidden is None:
            hidden = 4 * width if feed_forward == "gelu" else 8 * math.ceil(width / 3)
        self.arguments = {
            **{"vocabulary": vocabulary, "width": width, "depth": depth, "heads": heads, "groups": groups},
            **{"hidden": hidden, "length": length, "norm": norm, "feed_forward": feed_forward},
            **{"positions": positions, "theta": theta, "bias": bias, "tied": tied, "eps": eps},
        }  # what it takes to make it again, as JSON can hold it
        self.width, self.positions, self.theta = width, positions, theta
        self.embedding = nn.Embedding(vocabulary, width)
        self.rotary = Rotary(width // heads, theta) if positions == "rotary" else None
        if positions == "learned":
            if length is None:
                raise ValueError("learned positions need a length: the longest sequence there will be")
            self.learned = Learned(length, width)
        self.blocks = nn.ModuleList(
            Block(
                Attention(width, heads, groups, bias=bias),
                FEED_FORWARDS[feed_forward](width, hidden, bias=bias),
                (NORMS[norm](width, eps), NORMS[norm](width, eps)),
            )
            for _ in range(depth)
        )
        self.norm = NORMS[norm](width, eps)
        self.head = None if tied else nn.Linear(width, vocabulary, bias=False)

    @property
    def layers(self) -> list[Block]:
        """The blocks, in order."""
        return cast("list[Block]", list(self.blocks))

    def initialise(self, generator: torch.Generator) -> None:
        """The rule at the top of the file; norms and their shifts keep 1 and 0."""
        deviation = math.sqrt(2 / (5 * self.width))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(std=deviation, generator=generator)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
        for block in self.layers:
            for adds in (block.attention.output, block.feed_forward.down):
                adds.weight.div_(math.sqrt(2 * len(self.blocks)))

    def forward(
        self,
        tokens: Int64[Tensor, "B T"],
        positions: Int64[Tensor, "B T"] | None = None,
        mask: Mask | None = None,
        cache: list[Cache] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The hidden state of every token, after the last norm.

        Args:
            tokens: in 0 ... V-1. Rows shorter than T are padded on the right, with any token: no earlier one sees it.
            positions: of each token, by default 0 ... T-1.
            mask: by default causal; with a cache, slots 0 ... p for the token at position p.
            cache: from `cache()`; the tokens are stored at their positions, and see what was stored before.
        """
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        if mask is None:
            mask = CAUSAL if cache is None else until(positions, cache[0].keys.shape[2])
        x = self.embedding(tokens)  # [B, T, D]
        turn = None
        if self.positions == "learned":
            x = x + self.learned(positions)
        elif self.positions == "sinusoidal":
            x = x + sinusoidal(positions, self.width, self.theta).to(x.dtype)
        elif self.rotary is not None:
            angle = self.rotary.angles(positions)[:, None]  # [B, 1, T, d/2], radians
            turn = (angle.cos().to(x.dtype), angle.sin().to(x.dtype))
        for layer, block in enumerate(self.layers):
            x = block(x, mask, turn, None if cache is None else cache[layer], positions)
        return self.norm(x)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Unnormalised log-probabilities of the next token, for the positions whose hidden states are given."""
        return functional.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)

    def cache(self, batch: int, length: int) -> list[Cache]:
        """An empty cache for `batch` sequences of at most `length` tokens, one entry a layer."""
        first = self.layers[0].attention
        shape = (batch, first.groups, length, first.head_width)
        return [
            Cache(self.embedding.weight.new_zeros(shape), self.embedding.weight.new_zeros(shape)) for _ in self.blocks
        ]
