"""What the comparison with loops that train one measures, at a tiny size."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import tabular
from rl import train


def test_ratios_are_of_equal_numbers_of_steps() -> None:
    found = tabular.measure(steps=200, replicas=3, worlds=2)
    assert found["ratio"] == pytest.approx(found["ours_seconds"] / found["python_seconds"])
    assert found["silent_ratio"] == pytest.approx(found["silent_seconds"] / found["python_seconds"])
    assert found["bare_ratio"] == pytest.approx(found["ours_seconds"] / found["bare_seconds"])
    assert found["ours_updates_per_second"] == pytest.approx(3 * 200 / found["ours_seconds"])
    assert found["python_updates_per_second"] == pytest.approx(200 / found["python_seconds"])
    assert found["bare_updates_per_second"] == pytest.approx(200 / found["bare_seconds"])
    assert min(found.values()) > 0


def test_ours_reports_as_often_as_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 steps before the clock runs and 400 after, every 100 steps: at 40, 100, ..., 400 and 440."""
    seen, run = list[int](), train.Trainer.run

    def watched(self: train.Trainer, until: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        for step, metrics in run(self, until):
            seen.append(step)
            yield step, metrics

    monkeypatch.setattr(train.Trainer, "run", watched)
    tabular.side_by_side(400, replicas=2, reports=train.TrainConfig(worlds=1), device="cpu")
    assert seen == [40, 100, 200, 300, 400, 440]
    seen.clear()
    tabular.side_by_side(400, replicas=2, reports=train.TrainConfig(worlds=1, report_every=800), device="cpu")
    assert seen == [40, 440]  # as silent as the loops


@pytest.mark.parametrize("loop", [tabular.plain, tabular.bare])
def test_a_loop_takes_time_for_each_step(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that is read twice, before the first step and after the last."""
    read = iter([1.0, 3.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(read))
    assert loop(50) == 2.5
