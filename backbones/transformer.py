"""The Transformer over tokens: a decoder that predicts the next one, or an encoder that reads them all.

With the defaults (RMS norm, rotary positions, SwiGLU, no biases) it is Llama (Touvron et al. 2023, sec. 2.2); with
`norm="layer", feed_forward="gelu-tanh", positions="learned", bias=True` it is GPT-2; with `causal=False` an encoder.
The layers are those of `backbones.stack`.

`forward` ends at the hidden states, and `logits` is a call of its own: who needs the logits of few positions only
(a preference loss, a generator) computes only those, and [B, T, V] need never exist.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from backbones import feed_forward as networks
from backbones import positions as ways
from backbones.attention import Attention, Cache
from backbones.feed_forward import FeedForwardName
from backbones.likelihood import log_probability
from backbones.masks import CAUSAL, FULL, Mask, until
from backbones.moe import MoE
from backbones.positions import Positions
from backbones.product import linear
from backbones.shape import wrong
from backbones.stack import Block, NormName, Order, Stack, normalisation

PositionsName = Literal["rotary", "learned", "sinusoidal", "alibi", "relative", "none"]


def written(
    kind: PositionsName,
    *,
    width: int,
    heads: int,
    length: int | None,
    theta: float,
    causal: bool,
    stretch: Mapping[str, Any] | None = None,
) -> Positions:
    """The way to write positions of that name.

    Raises:
        ValueError: for a name that does not exist, learned positions without a length, a stretch of others than rotary
            ones, or a field that `positions.Stretch` has not.
    """
    if kind == "learned" and length is None:
        raise ValueError("learned positions need a length: the longest sequence there will be")
    if stretch is not None and kind != "rotary":
        raise ValueError(f"positions {kind!r} with stretch {dict(stretch)}: expected None, only rotary ones stretch")
    fields = [field.name for field in dataclasses.fields(ways.Stretch)]
    for name, value in (stretch or {}).items():
        if name not in fields:
            raise ValueError(f"stretch: {name} is {value!r}; expected fields {', '.join(fields)}")
    if stretch is not None and "factor" not in stretch:
        raise ValueError(f"stretch {dict(stretch)}: factor is missing, how many times longer the texts are")
    made: dict[str, Callable[[], Positions]] = {
        "rotary": lambda: ways.Rotary(width // heads, theta, None if stretch is None else ways.Stretch(**stretch)),
        "learned": lambda: ways.Learned(length or 0, width),
        "sinusoidal": lambda: ways.Sinusoidal(theta),
        "alibi": lambda: ways.ALiBi(heads),
        "relative": lambda: ways.RelativeBias(heads, both=not causal),
        "none": ways.Positions,
    }
    if kind not in made:
        raise ValueError(f"positions {kind!r}: expected one of {', '.join(made)}")
    return made[kind]()


class Transformer(nn.Module):
    """Tokens to hidden states to logits.

    Args:
        vocabulary: V, the number of tokens.
        width: D, the features of a position.
        depth: L, the number of blocks.
        heads: H, attention heads; divides the width.
        groups: key-value heads, by default as many as heads.
        hidden: inner width of the feed-forward; by default 4 D, or for SwiGLU as many weights.
        length: the longest sequence, which only learned positions need.
        norm: "rms", "layer", or "plain", a layer norm without weights.
        order: "pre" or "post": where the norm stands.
        feed_forward: "swiglu", "geglu", "gelu", "gelu-tanh", "relu" or "relu2".
        experts: feed-forward networks of a block, of which each token uses some (`backbones.moe`, which says who keeps
            them balanced); by default one, which all use.
        active: of the experts, how many a token uses; 2 by default.
        shared: experts besides, which every token uses.
        positions: "rotary", "learned", "sinusoidal", "alibi", "relative" or "none".
        theta: base of the rotary and sinusoidal frequencies.
        stretch: fields of `positions.Stretch`, for a rotary model that reads longer texts than it was trained on.
        bias: whether linear layers add one.
        tied: whether the output reads with the embedding's own matrix (Press & Wolf 2017).
        causal: whether a token sees only those before it, where no mask says otherwise.
        eps: added to the variance in the norms.

    Raises:
        ValueError: for a name that does not exist, sizes that do not divide, `active` or `shared` without experts, and
            as `written`.
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
        norm: NormName = "rms",
        order: Order = "pre",
        feed_forward: FeedForwardName = "swiglu",
        experts: int | None = None,
        active: int = 2,
        shared: int = 0,
        positions: PositionsName = "rotary",
        theta: float = 10_000.0,
        stretch: Mapping[str, Any] | None = None,
        bias: bool = False,
        tied: bool = True,
        causal: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if experts is None and (active, shared) != (2, 0):
            raise ValueError(f"active {active} and shared {shared} of no experts: expected a number of experts")
        self.arguments: dict[str, Any] = {
            **{"vocabulary": vocabulary, "width": width, "depth": depth, "heads": heads, "groups": groups},
            **{"hidden": hidden, "length": length, "norm": norm, "order": order, "feed_forward": feed_forward},
            **{"experts": experts, "active": active, "shared": shared},
            **{"positions": positions, "theta": theta, "stretch": None if stretch is None else dict(stretch)},
            **{"bias": bias, "tied": tied, "causal": causal, "eps": eps},
        }  # what it takes to make it again, as JSON can hold it
        self.width, self.causal = width, causal

        def network() -> nn.Module:
            return networks.make(feed_forward, width, hidden, bias=bias)

        self.embedding = nn.Embedding(vocabulary, width)
        self.stack = Stack(
            [
                Block(
                    Attention(width, heads, groups, bias=bias),
                    network() if experts is None else MoE(network, width, experts, active, shared=shared),
                    lambda: normalisation(norm, width, eps),
                    order=order,
                )
                for _ in range(depth)
            ],
            written(positions, width=width, heads=heads, length=length, theta=theta, causal=causal, stretch=stretch),
            normalisation(norm, width, eps) if order == "pre" else None,
        )
        self.head: nn.Module | None = None if tied else nn.Linear(width, vocabulary, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """As in `stack`: embeddings and head N(0, 2 / (5 D))."""
        deviation = math.sqrt(2 / (5 * self.width))
        for module in (self.embedding, self.head, *self.stack.positions.modules()):
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(std=deviation, generator=generator)

    def forward(
        self,
        tokens: Int64[Tensor, "B T"],
        positions: Int64[Tensor, "b T"] | None = None,
        mask: Mask | None = None,
        cache: list[Cache] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The hidden state of every token, after the last norm.

        Args:
            tokens: in 0 ... V-1. Rows shorter than T are padded on the right, with any token: no earlier one sees it.
            positions: of each token, by default 0 ... T-1; [1, T] where all rows have the same.
            mask: by default causal, or full in an encoder; with a cache, slots 0 ... p for the token at position p.
            cache: from `cache()`; the tokens are stored at their positions, and see what was stored before.
        """
        if tokens.ndim != 2:
            raise wrong("Transformer: tokens", tokens, "[B, T]")
        longest = self.arguments["length"] if self.arguments["positions"] == "learned" else None
        if longest is not None and positions is None and tokens.shape[1] > longest:
            raise wrong("Transformer: tokens", tokens, f"[B, T] with T up to the learned positions, {longest}")
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        if mask is None:
            mask = until(positions, cache[0].keys.shape[2]) if cache else CAUSAL if self.causal else FULL
        return self.stack(self.embedding(tokens), positions, mask, cache=cache)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Unnormalised log-probabilities of the next token, for the positions whose hidden states are given."""
        if hidden.shape[-1] != self.width:
            raise wrong("Transformer: hidden", hidden, f"[..., {self.width}]")
        if self.head is None or isinstance(self.head, nn.Linear):
            return linear(hidden, self.output_weight)
        return self.head(hidden)  # packed

    def log_probability(self, hidden: Float[Tensor, "N D"], target: Int64[Tensor, "N"]) -> Float[Tensor, "N"]:
        """log p(target) in nats at each of the positions, whose logits [N, V] are never held (see `likelihood`)."""
        return log_probability(hidden, self.output_weight, target)

    @property
    def output_weight(self) -> Float[Tensor, "V D"]:
        """What hidden states are compared with: the embedding's matrix, or the head's own."""
        return self.embedding.weight if self.head is None else cast(Tensor, self.head.weight)

    def cache(self, batch: int, length: int) -> list[Cache]:
        """An empty cache for `batch` sequences of at most `length` tokens, one entry a layer."""
        return self.stack.cache(batch, length, self.embedding.weight)
