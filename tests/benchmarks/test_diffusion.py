"""The load that both serve, and how it is served, without a network."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import diffusion, diffusion_load, diffusion_memory, diffusion_ways, resident
from benchmarks.diffusion_load import Asked, Size
from benchmarks.diffusion_rounds import compared, take_turns
from benchmarks.diffusion_ways import OURS, Calls, Peer, Served

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


class Fixed(nn.Module):
    """A network that an engine is using: nobody may move it. It looks at the prompt alone."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5, device=device)

    def forward(self, x: torch.Tensor, t: torch.Tensor, label: None, context: torch.Tensor) -> torch.Tensor:
        return self.layer(context)

    def _apply(self, *_: Any, **__: Any) -> Any:  # what every way to move a module comes to
        raise AssertionError("the network was moved")


def test_operations_are_counted_where_the_network_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert diffusion.row_flops(TINY, Fixed()) == 2 * TINY.tokens * 3 * 5
    shown: list[str] = []
    monkeypatch.setattr(
        diffusion, "flops", lambda _, *given: shown.extend(x.device.type for x in given if x is not None)
    )
    diffusion.row_flops(TINY, Fixed("meta"))
    assert shown == ["meta"] * 3  # a device that is not the default


def turns_of(rounds: int, *, narrow: bool) -> tuple[list[str], dict[str, int]]:
    """The order in which three ways take turns, and how often each served; b is the fastest of the others."""
    order: list[str] = []

    def way(name: str, seconds: float) -> Callable[[], Served]:
        def serve() -> Served:
            order.append(name)
            return Served(seconds, [1.0], [])

        return serve

    turns = take_turns("load", {OURS: way(OURS, 9.0), "a": way("a", 3.0), "b": way("b", 2.0)}, rounds, narrow=narrow)
    said = list[str]()
    while True:
        try:
            part, words = next(turns)
        except StopIteration as end:
            assert [words.rpartition(", ")[2] for words in said] == order
            return order, {name: len(served) for name, served in end.value.items()}
        assert part == "load"
        said.append(words)


def test_every_other_round_goes_backwards() -> None:
    order, counts = turns_of(3, narrow=False)
    assert order == [OURS, "a", "b", "b", "a", OURS, OURS, "a", "b"]
    assert counts == {OURS: 3, "a": 3, "b": 3}
    order, counts = turns_of(4, narrow=True)
    assert order == [OURS, "a", "b", "b", OURS, OURS, "b", "b", OURS]
    assert counts == {OURS: 4, "a": 1, "b": 4}


def test_a_ratio_is_of_medians_and_its_spread_is_of_rounds() -> None:
    """By hand; c served once, at a moment when all were fast."""
    rates = {OURS: [2.0, 4.0, 3.0], "a": [1.0, 1.0, 1.5], "b": [0.5, 0.9, 1.4], "c": [9.0]}
    found = compared({way: [Served(1 / rate, [0.0], []) for rate in each] for way, each in rates.items()})
    assert (found["peer_way"], found["rounds"]) == ("a", 3)
    assert (found["images_per_second"], found["peer"], found["ratio"]) == pytest.approx((3.0, 1.0, 3.0))
    assert found["ratio_spread"] == pytest.approx([2.0, 4.0])
    assert found["spread"]["b"] == pytest.approx([0.5, 1.4])
    assert found["spread"]["c"] == pytest.approx([9.0, 9.0])


@pytest.mark.parametrize("calls", [Calls(2), Calls(3, channels_last=True), None])
def test_memory_is_taken_of_what_was_asked_for(calls: Calls | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process instead of one of its own; two batches of four steps."""
    served: list[tuple[bool, int, int]] = []

    def by_calls(peer: Peer, asked: list[Asked], most: int) -> None:
        first = peer.network.conv_in.weight
        served.append((first.is_contiguous(memory_format=torch.channels_last), most, asked[0].steps))

    monkeypatch.setattr(diffusion_memory, "by_calls", by_calls)
    monkeypatch.setattr(diffusion_memory, "by_engine", lambda ours, asked: served.append((False, 0, asked[0].steps)))
    monkeypatch.setattr(resident, "apart", lambda _, asked, __: diffusion_memory._work(json.loads(json.dumps(asked))))
    diffusion_memory.peak(Size(side=8, widths=(32, 32), context=8, tokens=3, batch=3, rows=4), calls, "cpu")
    assert served == [(False, 0, 4) if calls is None else (calls.channels_last, calls.most, 4)] * 2
