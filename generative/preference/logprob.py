"""The log-probability of a whole completion: the sum over its tokens, the end included, and over nothing else.

    log pi(y | x) = sum_t log pi(y_t | x, y_<t)

This is the only thing a preference loss knows of a language model.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from generative.language.sft import Completions


def completion_logprob(
    model: nn.Module, tokens: Int64[Tensor, "B T"], score: Bool[Tensor, "B T"]
) -> Float[Tensor, "B"]:
    """log pi(completion, end | prompt) in nats; logits are computed at the positions of `score` only."""
    return model(tokens, score).sum(dim=1)


@torch.no_grad()
def over(model: nn.Module, data: Completions, batch_size: int = 256) -> Float[Tensor, "N"]:
    """`completion_logprob` of every sample, on the CPU: what a reference says of a data set, computed once."""
    device = next(model.parameters()).device
    parts = []
    for first in range(0, len(data), batch_size):
        index = torch.arange(first, min(first + batch_size, len(data)))
        batch = data.batch(index)
        parts.append(completion_logprob(model, batch["tokens"].to(device), batch["score"].to(device)).cpu())
    return torch.cat(parts)
