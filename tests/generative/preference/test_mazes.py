"""Pairs of maze walks: their order by an independent shortest path, and that they are functions of a seed."""

from __future__ import annotations

import pytest
import torch

from backbones.initialise import build
from backbones.transformer import Transformer
from generative.language import mazes
from generative.language.model import LanguageModel, ModelConfig
from generative.language.tokenizer import CharacterTokenizer
from generative.preference.mazes import corrected, demonstrated, prefer
from generative.preference.pairs import Pair, write
from generative.preference.preflight import preflight
from lab import streams
from tests.oracles.preference import shortest_walk, walks_to_goal

MAZE = "..#.G\n.#...\nS..#.\n"
TOKENIZER = CharacterTokenizer(mazes.ALPHABET)


def novice() -> LanguageModel:
    """A model whose walks are noise, but short: it is as likely to end as to move."""
    return ModelConfig(width=16, depth=1, heads=2).make(TOKENIZER.size, streams.generator(0))


def test_preference_is_valid_before_failed_and_short_before_long():
    short, long, fails = "RRURRU", "RLRRURRU", "RR"
    assert prefer(MAZE, short, long) == prefer(MAZE, long, short) == Pair(MAZE, short, long)
    assert prefer(MAZE, fails, long) == prefer(MAZE, long, fails) == Pair(MAZE, long, fails)
    assert prefer(MAZE, fails, "UU") is None
    assert prefer(MAZE, short, "RRURUR") is None
    assert prefer(MAZE, short, "") is None  # nothing to push away from


@pytest.mark.parametrize("kind", ["demonstrated", "corrected"])
def test_every_pair_holds_and_no_maze_is_held_out(kind: str):
    pairs = demonstrated(0, 80) if kind == "demonstrated" else corrected(novice(), TOKENIZER, 0, 80, batch_size=32)
    assert len(pairs) == 80
    for pair in pairs:
        assert walks_to_goal(pair.prompt, pair.chosen)
        assert not walks_to_goal(pair.prompt, pair.rejected) or len(pair.chosen) < len(pair.rejected)
        assert kind == "demonstrated" or len(pair.chosen) == shortest_walk(pair.prompt)
        assert not mazes.held_out(pair.prompt)


def test_a_longer_file_begins_with_the_shorter_and_other_seeds_differ():
    assert demonstrated(3, 30)[:10] == demonstrated(3, 10) != demonstrated(4, 10)
    model = novice()
    few = corrected(model, TOKENIZER, 3, 10, batch_size=16)
    assert corrected(model, TOKENIZER, 3, 30, batch_size=16)[:10] == few
    assert corrected(model, TOKENIZER, 4, 10, batch_size=16) != few


def test_a_model_that_never_moves_gives_no_pairs_and_the_search_stops():
    size = TOKENIZER.size
    still = build(lambda: Transformer(vocabulary=size, width=16, depth=1, heads=2, tied=False), streams.generator(0))
    with torch.no_grad():
        still.embedding.weight.fill_(1)
        still.head.weight.zero_()
        still.head.weight[TOKENIZER.eos] = 10
    assert corrected(LanguageModel(still), TOKENIZER, 0, 5, batch_size=64) == []


def test_the_pairs_pass_the_census_through_a_file(tmp_path):
    pairs = demonstrated(1, 50)
    write(tmp_path / "pairs.jsonl", pairs)
    assert preflight(tmp_path / "pairs.jsonl", strict=True).pairs == pairs
    found = preflight(tmp_path / "pairs.jsonl").findings
    assert (found.pairs, found.usable, found.contradictory) == (50, 50, 0)
