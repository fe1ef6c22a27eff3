"""The language model: a Transformer that gives the log-probability of each token after those before it.

`forward` answers the one question that training asks, log p(token | its past), at the positions asked for and at no
others: the hidden states of all positions are computed, the logits only of those, and of a chunk at a time. Whoever
trains a model therefore passes through `forward`, which is what a wrapper for many processes needs; a generator uses
`transformer` itself.

A model is saved as `generative.saved` has it; the description is the Transformer's arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from backbones.continuations import Continuations, Reading
from backbones.initialise import build
from backbones.transformer import Transformer
from generative import saved

KIND = "language model"


@dataclass(frozen=True)
class ModelConfig:
    """The size of a language model."""

    width: int = 64
    """Features of a position. Larger knows more and costs its square."""
    depth: int = 4
    """Blocks, one after another. Deeper plans further and costs in proportion."""
    heads: int = 4
    """Attention heads; must divide the width. More look at more places at once, each with fewer features."""
    positions: Literal["rotary", "learned", "sinusoidal"] = "rotary"
    """How positions are written: rotary reaches any length, learned suits texts of one fixed layout."""
    length: int = 256
    """The longest text in tokens, which only learned positions are bound by."""

    def make(self, vocabulary: int, generator: torch.Generator) -> LanguageModel:
        """A new model of this size over `vocabulary` tokens, its weights drawn from `generator`.

        Raises ValueError when the heads do not divide the width.
        """
        if self.width % self.heads:
            raise ValueError(f"width is {self.width}, which {self.heads} heads do not divide")
        transformer = build(
            lambda: Transformer(
                vocabulary=vocabulary,
                width=self.width,
                depth=self.depth,
                heads=self.heads,
                positions=self.positions,
                length=self.length if self.positions == "learned" else None,
            ),
            generator,
        )
        return LanguageModel(transformer)


class LanguageModel(nn.Module):
    """log p(token | past) from a causal Transformer."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, tokens: Int64[Tensor, "B T"], score: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Natural log-probability of each token given those before it, where `score` is true; 0 elsewhere.

        Args:
            tokens: rows shorter than T are padded on the right, with any token.
            score: which tokens to judge. The first of a row has no past and is never judged.
        """
        hidden = self.transformer(tokens)  # [B, T, D]
        row, past = score[:, 1:].nonzero(as_tuple=True)  # [N]: token past + 1 is judged by the state at past
        logp = self.transformer.log_probability(hidden[row, past], tokens[row, past + 1])  # [N], in nats
        return logp.new_zeros(tokens.shape).index_put((row, past + 1), logp)

    def judge(self, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "M"]:
        """Natural log-probability of each token that a row of prompts and continuations scores, given what it sees."""
        hidden = self.transformer(tokens[None], row.position[None], Reading(row=row))[0]  # [N, D]
        return self.transformer.log_probability(hidden[row.before], tokens[row.scored])

    def save(self, folder: Path) -> None:
        """Write the folder (see `generative.saved`)."""
        saved.save(folder, KIND, self.transformer.arguments, self.transformer)

    @classmethod
    def load(cls, folder: Path) -> LanguageModel:
        """Read what `save` wrote, onto the CPU. Raises ModelError when it is missing, damaged or of another format."""
        _, transformer = saved.load(folder, KIND, lambda arguments: Transformer(**arguments))
        return cls(transformer)
