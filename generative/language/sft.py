"""Supervised fine-tuning: raise the log-probability of a given completion of a given prompt.

    loss = -log p(completion, end | prompt) = -sum_t log p(y_t | prompt, y_<t)     (summed over the tokens, in nats)

The prompt is read and never scored. The sum, not the mean, is the loss of a sample: its batch mean is then the
cross-entropy of the whole completion, and the same number, with its sign turned, is what DPO compares.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from generative.language.tokenizer import Tokenizer
from generative.train import Batch, Losses


class Completions:
    """Prompts with their completions as padded tensors; a batch is cut to its longest row.

    Attributes:
        tokens: beginning, prompt, completion, end, then padding. int64 [N, T].
        score: true on the completion and its end. bool [N, T].
    """

    def __init__(self, tokens: Int64[Tensor, "N T"], score: Bool[Tensor, "N T"]) -> None:
        self.tokens, self.score = tokens, score
        self.length = (score * torch.arange(1, score.shape[1] + 1)).amax(dim=1)  # [N], end included

    def __len__(self) -> int:
        return len(self.tokens)

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        longest = int(self.length[index].max())
        return {"tokens": self.tokens[index, :longest], "score": self.score[index, :longest]}


def encode(tokenizer: Tokenizer, prompts: Sequence[str], completions: Sequence[str]) -> Completions:
    """Tokenise each prompt and its completion, apart from each other, and pad. Raises TokenizerError."""
    heads = [[tokenizer.bos, *tokenizer.encode(prompt)] for prompt in prompts]
    tails = [[*tokenizer.encode(completion), tokenizer.eos] for completion in completions]
    rows = list(zip(heads, tails, strict=True))
    tokens = torch.full((len(rows), max(len(head) + len(tail) for head, tail in rows)), tokenizer.pad)  # [N, T]
    score = torch.zeros(tokens.shape, dtype=torch.bool)
    for i, (head, tail) in enumerate(rows):
        tokens[i, : len(head) + len(tail)] = torch.tensor(head + tail)
        score[i, len(head) : len(head) + len(tail)] = True
    return Completions(tokens, score)


class SFT:
    """The objective of supervised fine-tuning, for a `LanguageModel` and `Completions`.

    Metrics: `nll_per_token`, the loss over the number of tokens that it sums.
    """

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """-log p(completion, end | prompt) [B], in nats. It draws nothing from `key`."""
        value = -model(batch["tokens"], batch["score"]).sum(dim=1)  # [B]
        return Losses(value, {"nll_per_token": value / batch["score"].sum(dim=1)})
