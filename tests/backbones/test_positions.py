"""Positions against complex arithmetic and the printed formula."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from backbones.positions import Learned, Rotary, rotate, sinusoidal


def turned(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    angle = Rotary(x.shape[-1], theta).angles(positions)[:, None]
    return rotate(x, angle.cos(), angle.sin())


def test_rotary_is_multiplication_of_complex_pairs_by_a_unit_number():
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions = torch.tensor([[0, 1, 2, 3, 4], [7, 3, 100, 0, 2]])
    found = turned(x, positions, theta=500.0)
    for b in range(2):
        for h in range(3):
            for t in range(5):
                for i in range(4):
                    angle = positions[b, t].item() * 500.0 ** (-2 * i / 8)
                    z = complex(x[b, h, t, i], x[b, h, t, i + 4]) * cmath.exp(1j * angle)
                    assert found[b, h, t, i].item() == pytest.approx(z.real, abs=1e-12)
                    assert found[b, h, t, i + 4].item() == pytest.approx(z.imag, abs=1e-12)


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    score = [
        (turned(q, torch.tensor([[p]]), 1e4) * turned(k, torch.tensor([[p - 5]]), 1e4)).sum().item() for p in (5, 6, 99)
    ]
    assert score == pytest.approx([score[0]] * 3, abs=1e-12)


def test_sinusoidal_follows_the_printed_formula():
    found = sinusoidal(torch.tensor([[0, 1, 50]]), 6)
    for t, p in enumerate((0, 1, 50)):
        for i in range(3):
            angle = p / 10_000 ** (2 * i / 6)
            assert found[0, t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[0, t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_learned_positions_are_rows_of_a_table_with_an_end():
    learned = Learned(4, 3)
    x = torch.ones(1, 2, 3)
    assert torch.equal(learned.add(x, torch.tensor([[2, 0]])), 1 + learned.table.weight[[2, 0]][None])
    with pytest.raises(IndexError):
        learned.add(x, torch.tensor([[4, 4]]))


def test_an_odd_width_is_refused_with_its_value():
    with pytest.raises(ValueError, match="the width is 7"):
        Rotary(7)
