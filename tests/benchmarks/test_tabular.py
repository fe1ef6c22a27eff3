"""What the comparison with a textbook's loop measures, at a tiny size."""

import pytest

from benchmarks import tabular


def test_the_ratio_is_of_equal_numbers_of_steps() -> None:
    found = tabular.measure(steps=200, replicas=3, worlds=2, turns=5)
    assert found["ratio"] == pytest.approx(found["ours_seconds"] / found["python_seconds"])
    assert found["ours_updates_per_second"] == pytest.approx(3 * 200 / found["ours_seconds"])
    assert found["python_updates_per_second"] == pytest.approx(200 / found["python_seconds"])
    assert min(found.values()) > 0
