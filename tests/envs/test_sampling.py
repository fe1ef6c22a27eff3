"""One of K outcomes by an integer: at every edge of every share, against exact fractions."""

from fractions import Fraction

import pytest
import torch

from envs.simulator.sampling import choice, search
from lab import streams

ROWS = {
    "thirds": [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0], [0, 0, 1], [2 / 3, 0, 1 / 3]],
    "tenths": [[0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.0, 1.0, 0.0]],
    "sixteenths": [[1 / 16, 7 / 16, 1 / 2], [1 / 4, 3 / 4, 0]],
    "odd": [[0.4, 0.6, 0, 0, 0], [0.123, 0.001, 0.3, 0.576, 0], [0.2, 0.2, 0.2, 0.2, 0.2]],
    "short": [[0.1] * 10 + [0.0]],  # these add up to a little less than 1
    "one": [[0.0, 1.0], [1.0, 0.0]],
}


def truth(row: list[float], u: Fraction) -> int:
    """The outcome whose share of the running sum (in floating point, as the tables have it) holds u."""
    total, possible = 0.0, [k for k, p in enumerate(row) if p > 0]
    for k, p in enumerate(row):
        total += p
        if p > 0 and u < Fraction(total):
            return k
    return possible[-1]


def edges(rows: list[list[float]], bits: int) -> list[int]:
    """Draws at and around the edge of every share and of every equal bin up to 32, and the first and the last."""
    sums = {float(total) for total in torch.tensor(rows, dtype=torch.float64).cumsum(1).flatten().tolist()}
    sums |= {m / B for B in range(1, 33) for m in range(B)}
    draws = {int(total * 2**bits) + d for total in sums for d in (-2, -1, 0, 1, 2)}
    return sorted(i for i in draws | {0, 2**bits - 1} if 0 <= i < 2**bits)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("bits", [24, 53])
def test_every_edge_falls_where_exact_fractions_say(name: str, bits: int) -> None:
    rows = ROWS[name]
    prob, draws = torch.tensor(rows, dtype=torch.float64), edges(rows, bits)
    found, slots = choice(prob) if bits == 24 else (search(prob, bits), None)
    i = torch.tensor(draws, dtype=torch.int32 if bits == 24 else torch.int64)
    for r, row in enumerate(rows):
        at = torch.full((len(i),), r, dtype=torch.int32)
        slot = (at if found.certain else found.slot(at, i)) - r * found.width
        outcome = slot if slots is None else slots[r][slot.long()]
        assert outcome.tolist() == [truth(row, Fraction(d, 2**bits)) for d in draws], row


def test_bins_are_used_where_they_fit_and_only_there() -> None:
    form = {name: choice(torch.tensor(rows, dtype=torch.float64))[0] for name, rows in ROWS.items()}
    assert {name: (found.width, found.last is None) for name, found in form.items()} == {
        "thirds": (3, True),
        "tenths": (10, True),
        "sixteenths": (16, True),
        "odd": (8, False),
        "short": (10, True),
        "one": (1, True),
    }


def test_many_outcomes_are_found_by_halves() -> None:
    """300 outcomes, a third of them impossible."""
    prob = streams.uniform(torch.tensor(3), torch.arange(600)).double().view(2, 300)
    prob[:, ::3] = 0
    prob /= prob.sum(1, keepdim=True)
    found, slots = choice(prob)
    assert found.width == 512
    assert slots is not None
    i = ((streams.bits(torch.tensor(5), torch.arange(2000)) >> 40) & 0xFFFFFF).int()
    slot = found.slot(torch.ones(2000, dtype=torch.int32), i) - 512
    row = prob[1].tolist()
    assert slots[1][slot.long()].tolist() == [truth(row, Fraction(d, 2**24)) for d in i.tolist()]
