"""Best of n: several completions are drawn from the policy, and the one that a reward model scores highest is said.

    y = argmax_i r(x, y_i),    y_1 ... y_n drawn from pi(. | x) at temperature 1

It is what a reward model is worth without any training of the policy, at n times the work of an answer (Nakano et al.
2021, "WebGPT", sec. 3.2; Stiennon et al. 2020, "Learning to summarize from human feedback", app. G.3). Where no two
completions have the same score, y is said with probability F(r(x, y))^n - F(r(x, y)-)^n, F the distribution function
of the score under the policy. Of equal scores the first drawn wins.

Draws are a function of (seed, number of the prompt, number of the draw), and depend on what is beside them by rounding
at most. Completions here are as a reward model learned them: with the end, unless they were cut before it.

Key: P prompts, n draws of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from generative.language.generate import generate
from generative.language.model import LanguageModel
from generative.preference.data import joined
from generative.preference.reward import Scorer
from lab import streams

Prompt = Sequence[int]
Completion = list[int]


def drawn(
    model: LanguageModel, prompts: Sequence[Prompt], n: int, *, seed: int, limit: int, end: int, batch_size: int = 512
) -> list[list[Completion]]:
    """n completions of each prompt by the lab's own model, the end included.

    Args:
        model: draws in the mode it is in.
        prompts: tokens, one at least each.
        n: 1 or more; the first of them are those that a smaller n draws.
        seed: root of the draws.
        limit: the most tokens of a completion, 1 or more; one that comes to no end within them has none.
        end: the token that ends a completion.
        batch_size: completions at a time.
    """

    def speak(asked: Sequence[Prompt], key: Int64[Tensor, "B"]) -> list[Completion]:
        return generate(model, asked, limit=limit, end=end, temperature=1.0, key=key)

    return _drawn(speak, prompts, n, seed, limit, end, batch_size)


def drawn_pretrained(
    pretrained: Any,
    prompts: Sequence[Prompt],
    n: int,
    *,
    seed: int,
    limit: int,
    batch_size: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[list[Completion]]:
    """As `drawn`, by a `generative.language.pretrained.Pretrained`; `progress` hears how many completions are drawn."""
    from generative.language.pretrained import complete  # transformers takes seconds to load

    def speak(asked: Sequence[Prompt], key: Int64[Tensor, "B"]) -> list[Completion]:
        return complete(pretrained, asked, limit=limit, batch_size=len(asked), key=key)

    return _drawn(speak, prompts, n, seed, limit, pretrained.tokenizer.eos_token_id, batch_size, progress)


def _drawn(
    speak: Callable[[Sequence[Prompt], Int64[Tensor, "B"]], list[Completion]],
    prompts: Sequence[Prompt],
    n: int,
    seed: int,
    limit: int,
    end: int,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> list[list[Completion]]:
    """n completions of each prompt, each by a key of its own, some at a time."""
    asked = [prompt for prompt in prompts for _ in range(n)]
    key = torch.tensor([streams.derive(seed, "draw", i, k) for i in range(len(prompts)) for k in range(n)])
    found = list[Completion]()
    for first in range(0, len(asked), batch_size):
        part = slice(first, first + batch_size)
        found += speak(asked[part], key[part])
        if progress is not None:
            progress(len(found))
    ended = [[*each, end] if len(each) < limit else each for each in found]  # who said less has come to an end
    return [ended[i * n : (i + 1) * n] for i in range(len(prompts))]


@torch.no_grad()
def scored(
    scorer: Scorer,
    prompts: Sequence[Prompt],
    completions: Sequence[Sequence[Completion]],
    *,
    device: torch.device,
    batch_size: int = 64,
) -> Float[Tensor, "P n"]:
    """The reward of each completion; a prompt is read once for all of its own.

    Args:
        scorer: in the mode it is to answer in.
        prompts: tokens.
        completions: equally many of each prompt, of one token or more.
        device: of the scorer.
        batch_size: prompts at a time.

    Raises:
        ValueError: for no prompt, an empty completion, or unequally many.
    """
    found = []
    for first in range(0, max(len(prompts), 1), batch_size):
        heads, tails = prompts[first : first + batch_size], completions[first : first + batch_size]
        tokens, row = joined(heads, tails, device)
        found.append(scorer.score(tokens, row).view(-1, row.each))
    return torch.cat(found)


def best(completions: Sequence[Sequence[Completion]], scores: Float[Tensor, "P n"]) -> list[Completion]:
    """Of each prompt the completion with the highest score."""
    return [each[i] for each, i in zip(completions, scores.argmax(dim=1).tolist(), strict=True)]


def divergence(n: int) -> float:
    """log n - (n - 1) / n, in nats: KL(best of n | policy) of a prompt is at most this.

    It is this, whatever the reward, where no completion has a probability worth mentioning (Stiennon et al., app.
    G.3); for all others it is a bound (Beirami et al. 2024, "Theoretical guarantees on the best-of-n alignment
    policy", theorem 1).
    """
    return math.log(n) - (n - 1) / n
