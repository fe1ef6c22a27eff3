"""The load that both serve, and how it is served, without a network."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import diffusion, diffusion_load, diffusion_ways
from benchmarks.diffusion_load import Asked, Size
from benchmarks.diffusion_ways import Served

TINY = Size(side=2, context=3, tokens=2, requests=200)


def test_the_load_is_mixed_and_comes_at_its_rate() -> None:
    asked = diffusion_load.load(TINY, rate=4.0)
    assert len(asked) == 200
    assert [one.arrival for one in asked] == sorted(one.arrival for one in asked)
    assert asked[-1].arrival == pytest.approx(199 / 4, rel=0.25)  # three standard deviations of 199 exponential gaps
    assert {one.solver for one in asked} == set(diffusion_load.SOLVERS)
    assert {one.steps for one in asked} == set(diffusion_load.STEPS)
    assert {one.guidance for one in asked} == set(diffusion_load.GUIDANCES)
    again = diffusion_load.load(TINY, rate=4.0)
    assert all(a.kind == b.kind and torch.equal(a.noise, b.noise) for a, b in zip(asked, again, strict=True))


class Hours:
    """A clock that the work itself moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Slow:
    """A peer whose call takes a second for each step, whatever the group."""

    def __init__(self, clock: Hours) -> None:
        self.clock, self.groups = clock, list[list[float]]()

    def images(self, group: Any) -> torch.Tensor:
        self.groups.append([one.arrival for one in group])
        self.clock.now += group[0].steps
        return torch.stack([one.noise for one in group])


def asked(arrival: float, solver: str, steps: int) -> Asked:
    return Asked(arrival, solver, steps, 1.0, torch.zeros(2, 3), torch.full((4, 2, 2), arrival))


@pytest.mark.parametrize(
    ("most", "groups", "latencies"),
    [
        (1, [[0.0], [1.0], [2.0], [3.0], [40.0]], [10, 29, 38, 47, 30]),
        (2, [[0.0], [1.0], [2.0, 3.0], [40.0]], [10, 29, 38, 37, 20]),
    ],
)
def test_calls_serve_the_oldest_and_its_kind(
    most: int, groups: list[list[float]], latencies: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds for ddim, twenty for euler: worked out by hand."""
    load = [asked(0, "ddim", 10), asked(1, "euler", 20), asked(2, "ddim", 10), asked(3, "ddim", 10)]
    load.append(asked(40, "euler", 20))
    clock = Hours()
    monkeypatch.setattr("time.sleep", clock.sleep)
    peer: Any = Slow(clock)
    served = diffusion_ways.by_calls(peer, load, most, clock)
    assert peer.groups == groups
    assert served.latencies == pytest.approx(latencies)
    assert [image[0, 0, 0].item() for image in served.images] == [0, 1, 2, 3, 40]


def test_latencies_are_read_off_in_order() -> None:
    served = Served(10.0, [float(x) for x in range(100, 0, -1)], [])
    assert (served.latency(0.5), served.latency(0.99), served.images_per_second) == (50, 99, 10)


def test_the_matrix_rate_is_operations_over_the_best_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([x for i in range(10) for x in (10.0 * i, 10.0 * i + 10 - i)])
    counter: Callable[[], float] = lambda: next(ticks)  # noqa: E731
    monkeypatch.setattr("time.perf_counter", counter)
    assert diffusion.matrix_rate("cpu", 4) == pytest.approx(2 * 4**3 / 1.0)
