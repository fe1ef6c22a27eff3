"""Continuing a prompt, one token at a time, many prompts at once.

Each step costs one token: keys and values of the past stay in a cache. Rows keep their own positions, so prompts of
different lengths share a batch without padding on the left, and each row draws from its own key: what a prompt is
answered depends on that prompt, its key and the temperature; on who else is in the batch only by rounding.

A step looks at the slots written so far and not at those to come. Where all prompts are equally long, no mask is
needed then. Steps are taken by the model as `backbones.packed` lays it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from backbones.masks import CAUSAL, FULL, until
from backbones.packed import packed
from generative.language.model import LanguageModel
from generative.language.tokenizer import Tokenizer
from lab import streams

LONG = 16  # steps that are worth laying the weights out for


def choose(
    logits: Float[Tensor, "B V"], temperature: float, uniform: Float[Tensor, "B"] | None = None
) -> Int64[Tensor, "B"]:
    """The next token: the likeliest at temperature 0, else a draw from softmax(logits / temperature).

    A draw inverts the cumulative distribution at `uniform`, in [0, 1): one number a row.
    """
    if temperature == 0 or uniform is None:
        return logits.argmax(dim=-1)
    cumulative = (logits.double() / temperature).softmax(dim=-1).cumsum(dim=-1)  # [B, V]
    point = uniform.double()[:, None] * cumulative[:, -1:]  # the sum is 1 up to rounding, and must not be passed
    return torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=logits.shape[1] - 1)


@torch.no_grad()
def generate(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    limit: int,
    end: int,
    temperature: float = 0.0,
    key: Int64[Tensor, "B"] | None = None,
) -> list[list[int]]:
    """The continuation of each prompt, without the prompt and without the end.

    Args:
        model: continues in the mode it is in; it stays so.
        prompts: tokens, at least one a row.
        limit: the most tokens to add to any row.
        end: the token that ends a row.
        temperature: 0 takes the likeliest token; 1 draws from the model; larger is wilder.
        key: one for each row, needed when the temperature is above 0; token t of a row uses `uniform(key, t)`.

    Raises:
        ValueError: when a prompt is empty, the temperature is negative, or drawing lacks its keys.
    """
    if temperature < 0 or (temperature > 0 and key is None):
        raise ValueError(f"temperature {temperature}: expected 0 or more, and above 0 one key for each prompt")
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt without tokens: there is nothing to continue; begin it with the beginning token")
    if not prompts:
        return []
    transformer = model.transformer
    device = transformer.embedding.weight.device
    sizes = [len(prompt) for prompt in prompts]
    longest, equal = max(sizes), len(set(sizes)) == 1
    lengths = torch.tensor(sizes, device=device)  # [B]
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(device)
    cache = transformer.cache(len(rows), longest + limit)
    hidden = transformer(rows, mask=CAUSAL, cache=[part.first(longest) for part in cache])  # [B, T, D]
    hidden = hidden[torch.arange(len(rows), device=device), lengths - 1]  # [B, D]
    stepping = packed(transformer, len(rows)) if limit >= LONG else transformer
    added: list[Tensor] = []
    ended = torch.zeros(len(rows), dtype=torch.bool, device=device)
    for t in range(limit):
        uniform = None if key is None else streams.uniform(key.to(device), t)
        token = choose(stepping.logits(hidden), temperature, uniform)
        token = torch.where(ended, end, token)
        added.append(token)
        ended = ended | (token == end)
        if t + 1 == limit or bool(ended.all()):
            break
        slots = longest + t + 1  # what padding wrote is overwritten before it is seen
        position = (lengths[:1] if equal else lengths)[:, None] + t  # [1, 1] or [B, 1]
        mask = FULL if equal else until(position, slots)
        hidden = stepping(token[:, None], position, mask, [part.first(slots) for part in cache])[:, 0]
    written = torch.stack(added, dim=1).tolist() if added else [[] for _ in prompts]
    return [row[: row.index(end)] if end in row else row for row in written]


def complete(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    limit: int,
    temperature: float = 0.0,
    key: Int64[Tensor, "N"] | None = None,
    batch_size: int = 256,
) -> list[str]:
    """`generate` for texts, `batch_size` at a time. Raises as it does, and TokenizerError."""
    texts: list[str] = []
    for first in range(0, len(prompts), batch_size):
        part = slice(first, first + batch_size)
        tokens = [[tokenizer.bos, *tokenizer.encode(prompt)] for prompt in prompts[part]]
        keys = None if key is None else key[part]
        rows = generate(model, tokens, limit=limit, end=tokenizer.eos, temperature=temperature, key=keys)
        texts += [tokenizer.decode(row) for row in rows]
    return texts
