"""What is held out is not learned from, in no other words either; and what is said of it is a mean over samples."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from generative.objective import Batch, Losses, TensorData
from generative.preference.tokens import Tokens
from qx.held_out import different, divided, means


def pair(prompt: int, chosen: int, rejected: int) -> Tokens:
    return Tokens((prompt,) if prompt else (), (chosen,), (rejected,))


@pytest.mark.parametrize("seed", range(5))
def test_all_pairs_of_a_prompt_are_on_one_side(seed: int) -> None:
    tokens = [pair(1 + i % 20, i, i + 1) for i in range(100)]
    learned, held = divided(tokens, seed, 0.25)
    assert len(held) == 25  # five prompts of five pairs
    assert sorted([*learned, *held], key=tokens.index) == tokens
    assert not {each.prompt for each in learned} & {each.prompt for each in held}
    assert learned == sorted(learned, key=tokens.index)  # in their order


def test_the_seed_draws_them() -> None:
    tokens = [pair(1 + i, 1, 2) for i in range(40)]
    drawn = {tuple(each.prompt for each in divided(tokens, seed, 0.1)[1]) for seed in range(10)}
    assert len(drawn) > 5
    assert {len(each) for each in drawn} == {4}


def test_of_one_prompt_or_none_the_same_text_is_on_one_side_also_turned_round() -> None:
    for prompt in (0, 7):
        texts = [(10 + i, 50 + i) for i in range(20)]
        tokens = [pair(prompt, *sides) for a, b in texts for sides in ((a, b), (b, a), (a, b))]
        learned, held = divided(tokens, 0, 0.2)
        assert len(held) == 12  # four texts of three rows
        said = [{frozenset((each.chosen, each.rejected)) for each in side} for side in (learned, held)]
        assert not said[0] & said[1]


def test_one_at_least_is_learned_from_and_a_group_too_large_is_left_out() -> None:
    assert divided([pair(1, 2, 3)], 0, 0.9) == ([pair(1, 2, 3)], [])
    assert divided([pair(1, 2, 3)] * 4, 0, 0.9)[1] == []
    large, small = [pair(1, i, 100) for i in range(1, 9)], [pair(2, 1, 2), pair(3, 1, 2)]
    assert divided([*large, *small], 0, 0.2)[1] == small


@pytest.mark.parametrize("seed", range(3))
def test_of_several_prompts_too_large_for_the_share_none_is_torn_apart_and_it_is_said(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens = [pair(1 + i % 10, i, 1000 + i) for i in range(300)]
    assert divided(tokens, seed, 0.0999) == (tokens, [])
    said = capsys.readouterr().err
    assert "nothing is held out: all of one prompt stay together, which are 30 at least" in said
    assert "and --held-out 0.0999 of 300 is 29" in said
    assert len(divided(tokens, seed, 0.1)[1]) == 30
    assert divided(tokens, seed, 0.0) == (tokens, [])  # which was asked for
    assert capsys.readouterr().err == ""


def test_of_one_prompt_it_is_said_how_many_have_a_side_that_is_learned(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is compared with 100, or nothing with another; of demonstrations the rejected side is empty."""
    for prompt in (0, 7):
        divided([pair(prompt, i, 100) for i in range(20)], 0, 0.2)
        assert "all have one prompt, so texts are held out; 4 of 4 have a side" in capsys.readouterr().err
        divided([pair(prompt, i, 100 + i) for i in range(20)], 0, 0.2)
        assert "all have one prompt, so texts are held out; 0 of 4 have a side" in capsys.readouterr().err
        divided([Tokens((prompt,), (i,), ()) for i in range(20)], 0, 0.2)
        assert "so texts are held out; 0 of 4 have a side" in capsys.readouterr().err
        divided([pair(prompt, i, 100) for i in range(3)], 0, 0.2)
        assert "nothing is held out: all of one text stay together, which are 1 at least" in capsys.readouterr().err
    divided([pair(1 + i % 2, i, 100) for i in range(20)], 0, 0.5)
    assert capsys.readouterr().err == ""


def test_the_first_of_every_prompt() -> None:
    tokens = [pair(0, 1, 2), pair(5, 1, 2), pair(4, 1, 2), pair(5, 3, 4), pair(6, 1, 2)]
    assert different(tokens, 2) == [tokens[1], tokens[2]]
    assert different(tokens, 9) == [tokens[1], tokens[2], tokens[4]]


@dataclass
class Itself:
    """The loss of a sample is its number, in batches of any size."""

    def loss(self, model: nn.Module, batch: Batch, key: Tensor) -> Losses:
        return Losses(batch["x"], {"square": batch["x"] ** 2})


def test_a_mean_is_one_over_samples_however_they_fall_into_batches() -> None:
    data = TensorData({"x": torch.arange(7.0)})
    for size in (1, 3, 16):
        found = means(Itself(), nn.Identity(), data, torch.device("cpu"), size)
        assert found["loss"].item() == pytest.approx(3)
        assert found["square"].item() == pytest.approx(13)
