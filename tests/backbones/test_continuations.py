"""Prompts with several continuations in one row: against a mask written out pair by pair, and against rows apart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backbones.continuations import Continuations, Reading
from backbones.initialise import build
from backbones.transformer import PositionsName, Transformer

SHAPES = [
    ([3], [[2, 4]]),
    ([3, 0, 7], [[2, 4], [1, 3], [5, 1]]),
    ([1, 6], [[1, 1, 1], [3, 2, 4]]),
    ([0, 0], [[2], [5]]),
]


def owners(prompts: list[int], continuations: list[list[int]]) -> list[tuple[int, int, int]]:
    """(pair, -1 for the prompt or which continuation, position in its sequence) of every token of the row."""
    row = []
    for b, (prompt, lengths) in enumerate(zip(prompts, continuations, strict=True)):
        row += [(b, -1, t) for t in range(prompt)]
        for k, length in enumerate(lengths):
            row += [(b, k, prompt + t) for t in range(length)]
    return row


def sees(query: tuple[int, int, int], key: tuple[int, int, int]) -> bool:
    return query[0] == key[0] and key[1] in (-1, query[1]) and key[2] <= query[2]


def naive(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    return (q @ k.mT * scale).masked_fill(~seen, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize(("prompts", "continuations"), SHAPES)
def test_a_token_sees_its_past_and_its_prompt_and_nothing_else(
    prompts: list[int], continuations: list[list[int]], groups: int
) -> None:
    """Values and gradients in float64."""
    found, row = Continuations(prompts, continuations), owners(prompts, continuations)
    assert found.tokens == len(row)
    assert found.position.tolist() == [position for _, _, position in row]
    draws = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, heads, len(row), 8, generator=draws, dtype=torch.float64, requires_grad=True)
        for heads in (4, groups, groups)
    )
    seen = torch.tensor([[sees(one, other) for other in row] for one in row])
    assert torch.equal(found.matrix()[0, 0], seen)
    for scale in (None, 0.7):
        mine, truth = found.attend(q, k, v, scale), naive(q, k, v, seen, 8**-0.5 if scale is None else scale)
        torch.testing.assert_close(mine, truth)
        weight = torch.randn(mine.shape, generator=draws, dtype=torch.float64)
        for one, other in zip(
            torch.autograd.grad((mine * weight).sum(), (q, k, v)),
            torch.autograd.grad((truth * weight).sum(), (q, k, v)),
            strict=True,
        ):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("positions", ["rotary", "alibi", "learned"])
def test_a_transformer_reads_a_row_as_it_reads_each_sequence_apart(positions: PositionsName) -> None:
    prompts, continuations = [3, 1, 5], [[2, 4], [1, 3], [5, 1]]
    model = build(
        lambda: Transformer(vocabulary=11, width=16, depth=2, heads=4, groups=2, positions=positions, length=12),
        torch.Generator().manual_seed(0),
    ).double()
    found, row = Continuations(prompts, continuations), owners(prompts, continuations)
    tokens = torch.randint(11, (len(row),), generator=torch.Generator().manual_seed(1))
    read = model(tokens[None], found.position[None], Reading(row=found))[0]
    for b in range(3):
        for k in range(2):
            own = [i for i, (c, j, _) in enumerate(row) if c == b and j in (-1, k)]
            torch.testing.assert_close(read[own], model(tokens[own][None])[0])


def test_a_row_is_refused_for_other_tokens() -> None:
    with pytest.raises(ValueError, match="expected its own tokens"):
        Reading(row=Continuations([1], [[1]])).matrix(3, 3, torch.device("cpu"))


lengths = st.integers(1, 4).flatmap(
    lambda each: st.lists(
        st.tuples(st.integers(0, 5), st.lists(st.integers(1, 5), min_size=each, max_size=each)), min_size=1, max_size=4
    )
)


@settings(max_examples=100, deadline=None)
@given(lengths)
def test_what_is_scored_is_every_continuation_token_with_a_past(shape: list[tuple[int, list[int]]]) -> None:
    prompts, continuations = [prompt for prompt, _ in shape], [each for _, each in shape]
    found, row = Continuations(prompts, continuations), owners(prompts, continuations)
    each = len(continuations[0])
    expected = []
    for place, (b, k, position) in enumerate(row):
        if k >= 0 and position > 0:
            before = max(i for i, (c, j, t) in enumerate(row) if c == b and j in (-1, k) and t == position - 1)
            expected.append((place, before, b * each + k))
    assert list(zip(found.scored.tolist(), found.before.tolist(), found.owner.tolist(), strict=True)) == expected
    ones = found.sums(torch.ones(len(expected)))
    assert ones.tolist() == [n - (not prompt) for prompt, those in shape for n in those]


@pytest.mark.parametrize(
    ("prompts", "continuations"), [([], []), ([1], [[]]), ([1, 1], [[1], [1, 2]]), ([1], [[0]]), ([1, 2], [[1]])]
)
def test_what_is_no_such_row_is_refused(prompts: list[int], continuations: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="continuation"):
        Continuations(prompts, continuations)
