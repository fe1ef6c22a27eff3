"""The encoder-decoder over tokens: one stack reads a source whole, another writes a target and looks at what was read.

    memory = encoder(source)                 every source token sees all of them, its padding aside
    hidden = decoder(target, memory)         a target token sees those before it, and all of memory

With the defaults it is the Transformer as it was published (Vaswani et al. 2017, sec. 3): norms after each sum,
sinusoidal positions, ReLU, biases, embeddings times sqrt(D), and one matrix for the output and both embeddings (3.4).
The layers are those of `backbones.stack`.

Key: B batch, S source tokens, T target tokens, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones import feed_forward as networks
from backbones.attention import Attention, Cache
from backbones.feed_forward import FeedForwardName
from backbones.masks import CAUSAL, FULL, Mask, padding, until
from backbones.shape import wrong
from backbones.stack import Block, Memory, NormName, Order, Stack, normalisation
from backbones.transformer import PositionsName, written


@dataclass(frozen=True)
class Read:
    """A source as the decoder looks at it: computed once for all the tokens that are written.

    Attributes:
        memory: keys and values, one pair a layer of the decoder.
        mask: which source tokens are seen.
    """

    memory: list[Memory]
    mask: Mask


class EncoderDecoder(nn.Module):
    """Source tokens and the target so far to hidden states to logits of the next target token.

    Args:
        source: number of source tokens, or None where source and target share one vocabulary and one embedding.
        vocabulary: V, number of target tokens.
        width: D, the features of a position.
        depth: L, blocks of the encoder, and of the decoder.
        heads: H, attention heads; divides the width.
        hidden: inner width of the feed-forward; by default 4 D, or for a gated one as many weights.
        length: the longest sequence, which only learned positions need.
        norm: as in the Transformer.
        order: "post" or "pre": where the norm stands. Pre-norm stacks end with one more.
        feed_forward: as in `feed_forward.make`.
        positions: as in `transformer.written`.
        theta: base of the rotary and sinusoidal frequencies.
        bias: whether linear layers add one.
        tied: whether the output reads with the target embedding's own matrix.
        eps: added to the variance in the norms.

    Raises:
        ValueError: for a name that does not exist, sizes that do not divide, or learned positions without a length.
    """

    def __init__(
        self,
        *,
        source: int | None,
        vocabulary: int,
        width: int,
        depth: int,
        heads: int,
        hidden: int | None = None,
        length: int | None = None,
        norm: NormName = "layer",
        order: Order = "post",
        feed_forward: FeedForwardName = "relu",
        positions: PositionsName = "sinusoidal",
        theta: float = 10_000.0,
        bias: bool = True,
        tied: bool = True,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            **{"source": source, "vocabulary": vocabulary, "width": width, "depth": depth, "heads": heads},
            **{"hidden": hidden, "length": length, "norm": norm, "order": order, "feed_forward": feed_forward},
            **{"positions": positions, "theta": theta, "bias": bias, "tied": tied, "eps": eps},
        }  # what it takes to make it again, as JSON can hold it
        self.width = width

        def stack(*, decoder: bool) -> Stack:
            return Stack(
                [
                    Block(
                        Attention(width, heads, bias=bias),
                        networks.make(feed_forward, width, hidden, bias=bias),
                        lambda: normalisation(norm, width, eps),
                        order=order,
                        cross=Attention(width, heads, bias=bias) if decoder else None,
                    )
                    for _ in range(depth)
                ],
                written(positions, width=width, heads=heads, length=length, theta=theta, causal=decoder),
                normalisation(norm, width, eps) if order == "pre" else None,
            )

        self.embedding = nn.Embedding(vocabulary, width)
        self.source_embedding = None if source is None else nn.Embedding(source, width)
        self.encoder, self.decoder = stack(decoder=False), stack(decoder=True)
        self.head = None if tied else nn.Linear(width, vocabulary, bias=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Embeddings and head N(0, 2 / (5 D)), as in `stack`; times sqrt(D), an embedding has features of size 1."""
        deviation = math.sqrt(2 / (5 * self.width))
        places = [*self.encoder.positions.modules(), *self.decoder.positions.modules()]
        for module in (self.embedding, self.source_embedding, self.head, *places):
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(std=deviation, generator=generator)

    def forward(
        self, source: Int64[Tensor, "B S"], target: Int64[Tensor, "B T"], lengths: Int64[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """The hidden state of every target token, which sees those before it and the whole source.

        Args:
            source: rows shorter than S are padded on the right, with any token.
            target: begins with the beginning; rows shorter than T are padded on the right, with any token.
            lengths: of the source's rows, in tokens; by default S.
        """
        return self.write(target, self.read(source, lengths))

    def read(self, source: Int64[Tensor, "B S"], lengths: Int64[Tensor, "B"] | None = None) -> Read:
        """Encode a source, and make what the decoder looks at."""
        if source.ndim != 2:
            raise wrong("EncoderDecoder: source", source, "[B, S]")
        if lengths is not None and lengths.shape != source.shape[:1]:
            raise wrong("EncoderDecoder: lengths", lengths, f"[{source.shape[0]}]")
        mask = FULL if lengths is None else padding(lengths, source.shape[1])
        table = self.embedding if self.source_embedding is None else self.source_embedding
        places = torch.arange(source.shape[1], device=source.device)[None]
        return Read(self.decoder.remember(self.encoder(self._scaled(table(source)), places, mask)), mask)

    def write(
        self,
        target: Int64[Tensor, "B T"],
        read: Read,
        positions: Int64[Tensor, "B T"] | None = None,
        cache: list[Cache] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The hidden states of target tokens.

        Args:
            target: tokens.
            read: the source.
            positions: of each token, by default 0 ... T-1.
            cache: from `cache()`; the tokens are stored at their positions, and see what was stored before.
        """
        if target.ndim != 2 or len(target) != len(read.memory[0][0]):
            raise wrong("EncoderDecoder: target", target, f"[{len(read.memory[0][0])}, T], a row for each source")
        if positions is None:
            positions = torch.arange(target.shape[1], device=target.device).expand_as(target)
        mask = CAUSAL if cache is None else until(positions, cache[0].keys.shape[2])
        x = self._scaled(self.embedding(target))
        return self.decoder(x, positions, mask, cache=cache, memory=read.memory, context_mask=read.mask)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """Unnormalised log-probabilities of the next token, for the positions whose hidden states are given."""
        return functional.linear(hidden, self.embedding.weight if self.head is None else self.head.weight)

    def cache(self, batch: int, length: int) -> list[Cache]:
        """An empty cache for `batch` targets of at most `length` tokens, one entry a layer."""
        return self.decoder.cache(batch, length, self.embedding.weight)

    @torch.no_grad()
    def translate(
        self,
        source: Int64[Tensor, "B S"],
        lengths: Int64[Tensor, "B"] | None = None,
        *,
        begin: int,
        end: int,
        limit: int,
    ) -> Int64[Tensor, "B T"]:
        """The likeliest next token, again and again, at the cost of one token each; T <= limit.

        A row that has written `end` goes on with `end`; all stop together, when every row has or at the limit.
        """
        read, cache = self.read(source, lengths), self.cache(len(source), limit)
        token = source.new_full((len(source), 1), begin)  # [B, 1]
        ended: Bool[Tensor, "B 1"] = torch.zeros_like(token, dtype=torch.bool)
        rows: list[Tensor] = []
        for t in range(limit):
            hidden = self.write(token, read, torch.full_like(token, t), cache)
            token = self.logits(hidden).argmax(dim=-1).masked_fill(ended, end)  # [B, 1]
            rows.append(token)
            ended = ended | (token == end)
            if bool(ended.all()):
                break
        return torch.cat(rows, dim=1) if rows else source[:, :0]

    def _scaled(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return x * math.sqrt(self.width)
