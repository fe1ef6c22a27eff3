"""Every word of the vocabulary against its meaning, query by query and key by key."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
import torch

from backbones import masks
from backbones.masks import CAUSAL, FULL, Mask

T = 6
LENGTHS, PREFIX = (6, 2), (3, 0)
SEGMENTS = ((0, 0, 1, 1, 1, 2), (5, 5, 5, 5, 7, 7))
OTHERS = ((0, 1, 1, 2, 2, 0), (7, 5, 5, 7, 7, 5))
PLACES = ((0, 1, 2, 3, 4, 5), (3, 0, 1, 5, 4, 4))

WORDS: dict[str, tuple[Mask, Callable[[int, int, int], bool]]] = {  # a mask, and what (row, query, key) it allows
    "full": (FULL, lambda b, t, s: True),
    "causal": (CAUSAL, lambda b, t, s: s <= t),
    "padding": (masks.padding(torch.tensor(LENGTHS), T), lambda b, t, s: s < LENGTHS[b]),
    "prefix": (masks.prefix(torch.tensor(PREFIX), T), lambda b, t, s: s <= t or s < PREFIX[b]),
    "blocks": (masks.blocks(torch.tensor(SEGMENTS)), lambda b, t, s: SEGMENTS[b][t] == SEGMENTS[b][s]),
    "blocks of keys": (
        masks.blocks(torch.tensor(SEGMENTS), torch.tensor(OTHERS)),
        lambda b, t, s: SEGMENTS[b][t] == OTHERS[b][s],
    ),
    "window": (masks.window(3, T), lambda b, t, s: s in (t - 2, t - 1, t)),
    "window ahead": (masks.window(2, T, ahead=True), lambda b, t, s: s in (t - 1, t, t + 1)),
    "window of one": (masks.window(1, T, ahead=True), lambda b, t, s: s == t),
    "until": (masks.until(torch.tensor(PLACES), T), lambda b, t, s: s <= PLACES[b][t]),
}


def meant(*names: str) -> torch.Tensor:
    """[2, T, T], entry by entry."""
    rules = [WORDS[name][1] for name in names]
    return torch.tensor([[[all(r(b, t, s) for r in rules) for s in range(T)] for t in range(T)] for b in range(2)])


def said(mask: Mask) -> torch.Tensor:
    seen = mask.matrix(T, T, torch.device("cpu"))
    return torch.ones(2, T, T, dtype=torch.bool) if seen is None else seen.expand(2, 1, T, T)[:, 0]


@pytest.mark.parametrize("name", WORDS)
def test_each_word_allows_what_it_says(name: str):
    assert torch.equal(said(WORDS[name][0]), meant(name))


@pytest.mark.parametrize(("one", "other"), list(product(WORDS, WORDS)))
def test_both_must_allow(one: str, other: str):
    both = WORDS[one][0] & WORDS[other][0]
    assert torch.equal(said(both), meant(one, other))
    assert both.causal == ("causal" in (one, other))  # the word survives, for the kernel


def test_a_causal_mask_over_more_keys_than_queries_counts_both_from_the_first():
    seen = CAUSAL.matrix(2, 4, torch.device("cpu"))
    assert seen is not None
    assert seen[0, 0].tolist() == [[True, False, False, False], [True, True, False, False]]


def test_a_window_in_which_a_query_does_not_see_itself_is_refused():
    with pytest.raises(ValueError, match="window of width 0: expected 1 or more"):
        masks.window(0, T)
