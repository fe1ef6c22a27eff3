"""Positions against complex arithmetic, the printed formulas, and T5's and BLOOM's own code."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

from backbones.positions import (
    ALiBi,
    Learned,
    RelativeBias,
    Rotary,
    Rotary2D,
    Sinusoidal,
    Stretch,
    rotate,
    sinusoidal,
)


def turned(x: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    return rotate(x, *Rotary(x.shape[-1], theta).turn(positions, x.dtype))


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


@pytest.mark.parametrize(
    ("stretch", "theirs"),
    [
        (Stretch(3.0), {"rope_type": "linear", "factor": 3.0}),
        (
            Stretch(8.0, 40, 1.0, 4.0),
            {
                **{"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 40},
                **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
            },
        ),
    ],
)
def test_stretched_frequencies_are_hugging_faces(stretch: Stretch, theirs: dict[str, float]):
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, rope_parameters={"rope_theta": 300.0, **theirs})
    expected, scale = ROPE_INIT_FUNCTIONS[theirs["rope_type"]](config, torch.device("cpu"))
    found = Rotary(32, 300.0, stretch).angles(torch.tensor([[1]]))[0, 0]
    assert scale == 1
    torch.testing.assert_close(found, expected.double(), rtol=1e-5, atol=0)


def test_rotary_in_two_dimensions_turns_half_of_the_pairs_by_the_row_and_half_by_the_column():
    x = torch.randn(1, 2, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places = torch.tensor([[[0, 0], [2, 5], [7, 1]]])
    found = rotate(x, *Rotary2D(8, 50.0).turn(places, torch.float64))
    for h in range(2):
        for t in range(3):
            for i in range(4):  # pairs 0 and 1 belong to the row, 2 and 3 to the column
                angle = places[0, t, i // 2].item() * 50.0 ** (-2 * (i % 2) / 4)
                z = complex(x[0, h, t, i], x[0, h, t, i + 4]) * cmath.exp(1j * angle)
                assert found[0, h, t, i].item() == pytest.approx(z.real, abs=1e-12)
                assert found[0, h, t, i + 4].item() == pytest.approx(z.imag, abs=1e-12)


def test_rotary_scores_in_two_dimensions_depend_on_the_two_differences_alone():
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    way = Rotary2D(16)

    def score(at: tuple[int, int], to: tuple[int, int]) -> float:
        turns = [way.turn(torch.tensor([[place]]), torch.float64) for place in (at, to)]
        return (rotate(q, *turns[0]) * rotate(k, *turns[1])).sum().item()

    assert score((5, 9), (2, 13)) == pytest.approx(score((3, 4), (0, 8)), abs=1e-12)
    assert score((5, 9), (2, 13)) != pytest.approx(score((9, 5), (13, 2)), abs=1e-3)  # rows are not columns
    with pytest.raises(ValueError, match="a head of width 6 has no two equal halves"):
        Rotary2D(6)


@pytest.mark.parametrize("heads", [1, 2, 3, 4, 6, 8, 12, 16, 20, 25])
def test_alibi_slopes_are_those_of_bloom_and_mpt(heads: int):
    place = torch.arange(7)[None]
    found = ALiBi(heads).bias(place, place, torch.float64)  # [1, H, 7, 7]
    bloom = build_alibi_tensor(torch.ones(1, 7), heads, torch.float32).view(heads, 7)  # slope s, up to a shift
    mpt = build_mpt_alibi_tensor(heads, 7).view(heads, 7)  # slope (s - 6)
    torch.testing.assert_close(found[0, :, 6], mpt.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found[0, :, 6] + 6 * bloom[:, 1:2], bloom.double(), rtol=1e-6, atol=1e-6)
    for t in range(7):
        for s in range(7):
            torch.testing.assert_close(found[0, :, t, s], -bloom[:, 1].double() * abs(t - s), rtol=1e-6, atol=0)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (16, 50), (8, 20)])
def test_relative_buckets_are_those_of_t5(both: bool, buckets: int, distance: int):
    ahead = torch.arange(-300, 301)  # s - p, which T5 counts by
    expected = T5Attention._relative_position_bucket(ahead, both, buckets, distance)
    found = RelativeBias(2, both=both, buckets=buckets, distance=distance).bucket(-ahead)
    assert torch.equal(found, expected)
    assert len(found.unique()) == buckets - both  # all are in use, but "0 ahead"


def test_the_relative_bias_of_a_pair_is_the_number_of_its_bucket():
    way = RelativeBias(3, both=True, buckets=8, distance=20)
    queries, keys = torch.tensor([[0, 9, 4]]), torch.tensor([[3, 0, 40, 8], [1, 2, 3, 4]])
    found = way.bias(queries, keys, torch.float64)
    assert found.shape == (2, 3, 3, 4)
    for c in range(2):
        for t in range(3):
            for s in range(4):
                bucket = way.bucket(queries[0, t] - keys[c, s])
                assert torch.equal(found[c, :, t, s], way.table.weight[bucket].double())


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


def test_alibi_measures_distances_before_it_rounds():
    """515 is no number of bfloat16, nor are the slopes of 12 heads: a product of rounded numbers is rounded twice."""
    way, at, to = ALiBi(12), torch.tensor([[20_000]]), 20_000 - torch.arange(500, 600)[None]
    fine = way.bias(at, to, torch.float32)
    torch.testing.assert_close(fine.double(), way.bias(at, to, torch.float64), rtol=1e-6, atol=0)
    assert torch.equal(way.bias(at, to, torch.bfloat16), fine.to(torch.bfloat16))


def test_sines_are_as_exact_as_what_they_are_added_to():
    x, place = torch.zeros(1, 1, 4, dtype=torch.float64), torch.tensor([[12_345]])
    angles = [12_345.0, 12_345.0 / 100]
    truth = [f(angle) for angle in angles for f in (math.sin, math.cos)]
    assert Sinusoidal().add(x, place)[0, 0].tolist() == pytest.approx(truth, abs=1e-11)
    assert Sinusoidal().add(x.float(), place).dtype == torch.float32
