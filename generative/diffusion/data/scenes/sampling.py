"""Scenes drawn by seed, and which captions are never trained on.

Every caption is on exactly one of three sides, whatever the seed:

* "thing": it names one of the six things of `HELD_OUT`. They are so chosen that every shape and every colour is seen in
  training, five times each, but never this shape in this colour.
* "pair": it relates two other things that are never seen together in training: a tenth of all unordered pairs, by the
  hash of their names. Whatever the relation, and whichever comes first: "a left of b" and "b right of a" are one scene.
  A thing beside its like is no such pair: "two red keys" show it.
* "training": all others.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import Literal, get_args

import torch

from generative.diffusion.data.scenes.drawing import CELLS, paint
from generative.diffusion.data.scenes.grammar import (
    Cell,
    Layout,
    Meaning,
    Related,
    Some,
    Thing,
    caption,
    meanings,
    related,
)
from generative.diffusion.data.split import Images
from lab import streams

Side = Literal["training", "pair", "thing"]
SIDES: tuple[Side, ...] = get_args(Side)

HELD_OUT = frozenset(
    Thing(*words.split()) for words in ("purple agent", "blue goal", "red key", "grey door", "yellow ball", "green box")
)

SHARES = {"alone": 0.25, "several": 0.25, "related": 0.5}  # of the kinds of caption, where a side has all
GRID: tuple[Cell, ...] = tuple(product(range(CELLS), range(CELLS)))


def side_of(meaning: Meaning) -> Side:
    """The one side that a caption is on."""
    if not isinstance(meaning, Related):
        return "thing" if meaning.thing in HELD_OUT else "training"
    both = sorted((meaning.first, meaning.second))
    if HELD_OUT & set(both):
        return "thing"
    if both[0] == both[1]:
        return "training"
    digest = hashlib.blake2b(f"{both[0]}, {both[1]}".encode(), digest_size=8).digest()
    return "pair" if digest[0] < 26 else "training"  # 26 / 256 = 10.2%


@lru_cache
def of_side(side: Side) -> dict[str, tuple[Meaning, ...]]:
    """What can be said on a side, by kind; without kinds of which it has none."""
    found: dict[str, list[Meaning]] = {kind: [] for kind in SHARES}
    for meaning in meanings():
        if side_of(meaning) == side:
            kind = "related" if isinstance(meaning, Related) else "alone" if meaning.count == 1 else "several"
            found[kind].append(meaning)
    return {kind: tuple(members) for kind, members in found.items() if members}


def scene(seed: int, index: int, side: Side = "training") -> tuple[Meaning, Layout]:
    """Scene `index` of a seed: what its caption means, and what stands where. It depends on these alone."""
    rng = random.Random(streams.derive(seed, "scene", side, index))
    kinds = of_side(side)
    (kind,) = rng.choices(list(kinds), [SHARES[kind] for kind in kinds])
    meaning = rng.choice(kinds[kind])
    return meaning, arrange(meaning, rng)


def arrange(meaning: Meaning, rng: random.Random) -> Layout:
    """One of the ways in which it can be true, all alike likely."""
    if isinstance(meaning, Some):
        return dict.fromkeys(rng.sample(GRID, meaning.count), meaning.thing)
    ways = [(a, b) for a, b in product(GRID, GRID) if related(a, meaning.relation, b)]
    a, b = rng.choice(ways)
    return {a: meaning.first, b: meaning.second}


def scenes(seed: int, n: int, side: Side = "training") -> Images:
    """The first `n` scenes of a seed: images float32 [n, 3, 16, 16] in [-1, 1], with captions."""
    return images_of([scene(seed, index, side) for index in range(n)])


def images_of(drawn: Sequence[tuple[Meaning, Layout]]) -> Images:
    """Each scene painted, with its caption."""
    image = torch.stack([paint(layout) for _, layout in drawn]) if drawn else torch.empty(0, 3, 16, 16)
    return Images(image, None, tuple(caption(meaning) for meaning, _ in drawn))
