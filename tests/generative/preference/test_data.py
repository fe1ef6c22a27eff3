"""Pairs as they are asked: portions by length, rows of completions, the precision asked for, answers that can be."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from backbones.continuations import Continuations
from generative.language.model import LanguageModel, ModelConfig
from generative.preference.data import PairData, _portions, joined, judged, packed
from generative.preference.tokens import Tokens
from generative.saved import ModelError
from lab import streams

CPU = torch.device("cpu")
PAIRS = PairData([Tokens((1, 2), (3,), (4, 5)), Tokens((6,), (7, 8), (9,)), Tokens((1,), (2,), (3, 3, 4, 9))])


class Saying(nn.Module):
    """Says the same of every token, but one number of a token 9."""

    def __init__(self, other: float) -> None:
        super().__init__()
        self.other = other

    def judge(self, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "M"]:
        return torch.where(tokens[row.scored] == 9, self.other, -0.5)


@pytest.mark.parametrize("most", [1, 5, 12, 1000])
def test_portions_hold_all_once_the_short_before_the_long_and_as_many_as_fit(most: int) -> None:
    size = torch.randint(1, 12, (50,), generator=torch.Generator().manual_seed(0))
    found = [index.tolist() for index in _portions(size, most)]
    assert [i for index in found for i in index] == sorted(range(50), key=lambda i: (int(size[i]), i))
    tokens = [[int(size[i]) for i in index] for index in found]
    assert all(sum(each) <= most or len(each) == 1 for each in tokens)
    assert all(sum(one) + other[0] > most for one, other in pairwise(tokens))


def test_a_row_of_prompts_and_completions_is_that_of_pairs_where_there_are_two() -> None:
    prompts, completions = [[1, 2], [6], [1]], [[[3], [4, 5]], [[7, 8], [9]], [[2], [3, 3, 4, 9]]]
    tokens, row = joined(prompts, completions, CPU)
    expected, same = packed(PAIRS.batch(torch.arange(3)))
    assert tokens.tolist() == expected.tolist()
    for name in ("position", "scored", "before", "owner"):
        assert getattr(row, name).tolist() == getattr(same, name).tolist()


def test_a_model_is_asked_in_the_precision_asked_for() -> None:
    """As torch's own autocast rounds, which bfloat16 does by far more than float32."""
    model = ModelConfig(width=32, depth=2, heads=2).make(12, streams.generator(0))
    tokens, row = packed(PAIRS.batch(torch.arange(3)))
    with torch.no_grad():
        whole = row.sums(model.judge(tokens, row)).view(-1, 2).double()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = row.sums(model.judge(tokens, row)).view(-1, 2).double()
    assert (whole - rounded).abs().max() > 1e-3
    torch.testing.assert_close(told(model, "bf16"), rounded, rtol=0, atol=1e-5)
    torch.testing.assert_close(told(model, "float32"), whole, rtol=0, atol=1e-5)


def told(model: LanguageModel, precision: str) -> Tensor:
    found = torch.full((3, 2), torch.nan, dtype=torch.float64)
    assert list(judged(model, PAIRS, found, device=CPU, precision=precision)) == [3]  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("other", [math.nan, math.inf, -math.inf, 1.0])
def test_what_is_no_log_probability_is_refused_with_its_place(other: float) -> None:
    """Of the second pair's rejected side; the portion before it is filled in."""
    found = torch.full((3, 2), torch.nan, dtype=torch.float64)
    told = other - 0.5  # of its two tokens
    message = f"the model says {told:.4g} nats of the rejected side of pair 2 of the 3 asked here .*; expected a finite"
    asking = judged(Saying(other), PairData(_pairs(9)), found, device=CPU, tokens=5)
    assert next(asking) == 1
    with pytest.raises(ModelError, match=message):
        next(asking)
    assert found[0].tolist() == [-0.5, -1.0]
    assert found[1:].isnan().all()
    assert list(judged(Saying(-3.0), PairData(_pairs(9)), found, device=CPU, tokens=5)) == [1, 2, 3]
    assert found[1].tolist() == [-1.0, -3.5]


def _pairs(odd: int) -> list[Tokens]:
    return [Tokens((1,), (2,), (3, 4)), Tokens((1,), (2, 3), (odd, 1)), Tokens((1,), (2, 3, 4), (3, 3, 4))]


def test_what_is_above_0_by_rounding_is_no_fault() -> None:
    found = torch.full((3, 2), torch.nan, dtype=torch.float64)
    assert list(judged(Saying(6e-8), PAIRS, found, device=CPU)) == [3]
    assert 0 < found[1, 1] < 1e-7
