"""Preference pairs of maze walks, ordered by the judge and by nothing else.

    demonstrated    two demonstrators walk the same maze; the better walk is chosen. Needs no model.
    corrected       a model walks; where it fails or walks too far, its own walk is rejected and a shortest one chosen.

The second is what teaches: its rejected walks are the mistakes that this model makes, and it says what would have
been right where the model never is. Both are functions of a seed, and a longer file begins with the shorter one.
"""

from __future__ import annotations

import random

import torch

from generative.language import mazes
from generative.language.generate import complete
from generative.language.model import LanguageModel
from generative.language.tokenizer import Tokenizer
from generative.preference.pairs import Pair
from lab import streams

LIMIT = 16
"""Moves after which a model's walk is cut off."""
PATIENCE = 20
"""Mazes looked at for each pair wanted, before the search gives up: a model that is always right gives no pairs."""


def prefer(text: str, one: str, other: str) -> Pair | None:
    """The pair that the judge makes of two walks, or None when neither is better or the worse says nothing.

    A valid walk beats one that fails, and of two valid walks the shorter beats the longer. Raises MazeError.
    """
    first, second = mazes.judge(text, one), mazes.judge(text, other)
    ranks = [(not walk.valid, walk.length if walk.valid else 0) for walk in (first, second)]
    better, worse = (one, other) if ranks[0] < ranks[1] else (other, one)
    return None if ranks[0] == ranks[1] or not worse else Pair(text, better, worse)


def demonstrated(seed: int, count: int) -> list[Pair]:
    """Up to `count` pairs, each of two imperfect demonstrations of one maze."""
    root, pairs = streams.derive(seed, "pairs"), list[Pair]()
    for index in range(PATIENCE * count):
        if len(pairs) == count:
            break
        text = mazes.draw(root, index)
        walks = [mazes.demonstrate(root, 2 * index + side, text) for side in (0, 1)]
        if pair := prefer(text, *walks):
            pairs.append(pair)
    return pairs


def corrected(
    model: LanguageModel, tokenizer: Tokenizer, seed: int, count: int, *, batch_size: int = 256
) -> list[Pair]:
    """Up to `count` pairs of a shortest walk and the model's own, drawn at temperature 1."""
    root, pairs = streams.derive(seed, "pairs"), list[Pair]()
    for first in range(0, PATIENCE * count, batch_size):
        if len(pairs) >= count:
            break
        index = range(first, first + batch_size)
        texts = [mazes.draw(root, i) for i in index]
        key = torch.tensor([streams.derive(root, "walk", i) for i in index])
        walks = complete(model, tokenizer, texts, limit=LIMIT, temperature=1.0, key=key, batch_size=batch_size)
        for i, text, walk in zip(index, texts, walks, strict=True):
            best = mazes.shortest(mazes.Maze(text), random.Random(streams.derive(root, "shortest", i)))
            pair = prefer(text, best, walk)
            if pair is not None:
                pairs.append(pair)
    return pairs[:count]
