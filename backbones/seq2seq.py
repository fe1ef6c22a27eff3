"""From one sequence to another by recurrent networks: the decoder looks at the source anew before every word.

    h = encoder(source), both directions;    s_0 = tanh(W h_1), of the direction that ends there
    a_t, c_t = attention(s_{t-1}, h);    s_t = cell([word_{t-1}, c_t], s_{t-1});    logits_t = V [s_t, c_t, word_{t-1}]

Source: Bahdanau, Cho & Bengio 2015, "Neural machine translation by jointly learning to align and translate", sec. 3
and appendix A.2. Departures: the logits are linear in what they are made of (theirs pass a maxout layer), and read s_t
(theirs s_{t-1}), so that they see what the cell made of the context. With "lstm" the memory cell starts at zero.

Sources are padded on the right. The backward encoder would read the padding first: it is reset where the padding
begins, so that every row is read from its own last word. The decoder does not see the padding at all.

Key: B batch, S source words, T target words, D width of an embedding, H width of each network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from backbones.additive import AdditiveAttention
from backbones.masks import FULL, Mask, padding
from backbones.recurrent import Recurrent
from backbones.shape import wrong


@dataclass(frozen=True)
class Source:
    """A source that was read: what the decoder looks at, and the state it starts with.

    Attributes:
        values: h, [B, S, 2 H].
        keys: h as the attention compares it, [B, S, H].
        mask: which positions hold words.
        state: s_0, of the decoder.
    """

    values: Float[Tensor, "B S h"]
    keys: Float[Tensor, "B S a"]
    mask: Mask
    state: Float[Tensor, "B P 1 H"]


class Seq2Seq(nn.Module):
    """Source words and the target words so far -> logits of the next.

    Args:
        source: number of source words.
        target: number of target words.
        width: H, of each direction of the encoder, of the decoder and of the attention's hidden layer.
        embedding: D, by default H.
        kind: of the cells.
    """

    def __init__(
        self,
        source: int,
        target: int,
        width: int,
        embedding: int | None = None,
        *,
        kind: Literal["gru", "lstm"] = "gru",
    ) -> None:
        super().__init__()
        embedding = width if embedding is None else embedding
        self.width = width
        self.source, self.target = nn.Embedding(source, embedding), nn.Embedding(target, embedding)
        self.encoder = Recurrent(kind, embedding, width, bidirectional=True)
        self.start = nn.Linear(width, width)
        self.attention = AdditiveAttention(width, 2 * width, width)
        self.decoder = Recurrent(kind, embedding + 2 * width, width)
        self.output = nn.Linear(embedding + 3 * width, target)

    def forward(
        self, source: Int64[Tensor, "B S"], target: Int64[Tensor, "B T"], lengths: Int64[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Teacher forcing: unnormalised log-probabilities of the word after each of `target`.

        Args:
            source: words, padded on the right with any.
            target: what was said so far; the first is the word that stands for the beginning.
            lengths: of each row of `source`, 1 or more; by default S.

        Raises:
            ShapeError: where the batches differ.
        """
        return self._follow(source, target, lengths)[0]

    def alignment(
        self, source: Int64[Tensor, "B S"], target: Int64[Tensor, "B T"], lengths: Int64[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B T S"]:
        """How much each source word was looked at before the word after each of `target` was said; rows sum to 1."""
        return self._follow(source, target, lengths)[1]

    @torch.no_grad()
    def generate(
        self,
        source: Int64[Tensor, "B S"],
        lengths: Int64[Tensor, "B"] | None = None,
        *,
        begin: int,
        end: int,
        limit: int,
    ) -> Int64[Tensor, "B T"]:
        """The likeliest next word, again and again (greedily), until every row has said `end` or T is `limit`.

        What follows a row's first `end` is `end`. `begin` is said before the first word and is not part of the answer.
        """
        read = self.read(source, lengths)
        state, word = read.state, source.new_full((len(source),), begin)
        done, said = torch.zeros_like(word, dtype=torch.bool), list[Tensor]()
        while len(said) < limit and not done.all():
            logits, state, _ = self._step(read, state, self.target(word))
            word = logits.argmax(-1).masked_fill(done, end)
            done = done | (word == end)
            said.append(word)
        return torch.stack(said, dim=1) if said else source[:, :0]

    def read(self, source: Int64[Tensor, "B S"], lengths: Int64[Tensor, "B"] | None = None) -> Source:
        """Encode a batch of sources."""
        if source.ndim != 2:
            raise wrong("Seq2Seq: source", source, "[B, S]")
        if lengths is not None and lengths.shape != source.shape[:1]:
            raise wrong("Seq2Seq: lengths", lengths, f"[{len(source)}]")
        mask, ends = FULL, None
        if lengths is not None:
            mask = padding(lengths, source.shape[1])
            ends = torch.arange(source.shape[1], device=source.device) == lengths[:, None]  # where the padding begins
        h, _ = self.encoder(self.source(source), None, ends)  # [B, S, 2 H]
        state = self.decoder.initial(len(source))
        state[:, 0, 0] = torch.tanh(self.start(h[:, 0, self.width :]))
        return Source(h, self.attention.read(h), mask, state)

    def _follow(self, source: Tensor, target: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if target.ndim != 2 or len(target) != len(source):
            raise wrong("Seq2Seq: target", target, f"[{len(source)}, T]")
        read = self.read(source, lengths)
        state, logits, weights = read.state, [], []
        for word in self.target(target).unbind(1):  # each [B, D]
            out, state, weight = self._step(read, state, word)
            logits.append(out)
            weights.append(weight)
        return torch.stack(logits, dim=1), torch.stack(weights, dim=1)

    def _step(self, read: Source, state: Tensor, word: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One word further: logits [B, V], the decoder's state, and the weights [B, S] of what it looked at."""
        context, weights = self.attention.look(state[:, 0], read.keys, read.values, read.mask)  # [B, 1, 2 H], [B, 1, S]
        told = torch.cat([word[:, None], context], dim=-1)
        out, state = self.decoder(told, state)
        return self.output(torch.cat([out, context, word[:, None]], dim=-1))[:, 0], state, weights[:, 0]
