"""`qx bench diffusion`: who takes part in which round, what is made of their times, and what is said of it."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from benchmarks import diffusion, diffusion_memory
from benchmarks.diffusion_load import Asked, Size
from benchmarks.diffusion_ways import OURS, Calls, Served
from lab import console
from qx import main

BATCH, REQUESTS = 8, 12
LAYOUTS = {False: "diffusers", True: "diffusers, channels last"}


class Field:
    """Ways that take no time: a serving lasts as many seconds as is written here."""

    def __init__(self) -> None:
        self.engine = {BATCH: iter([1.0, 2.0, 4.0]), REQUESTS: iter([1.0, 1.5, 3.0])}
        self.grouped = iter([4.0, 2.0, 6.0])  # by calls of diffusers under the mixed load: the fastest in its first

    def by_engine(self, ours: Any, asked: Sequence[Asked]) -> Served:
        if asked[0].steps == 2:  # for nothing
            return Served(9.0, [9.0], [])
        seconds = next(self.engine[len(asked)])
        return Served(seconds, [seconds] * len(asked), [])

    def by_calls(self, peer: Any, asked: Sequence[Asked], most: int) -> Served:
        if asked[0].steps == 2:
            return Served(9.0, [9.0], [])
        if len(asked) == BATCH:
            seconds = 6.0 if (peer.channels_last, most) == (True, 4) else 8.0
        else:
            seconds = next(self.grouped) if (peer.channels_last, most) == (False, BATCH) else 5.0
        return Served(seconds, [seconds] * len(asked), [])


@pytest.fixture
def field(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Field()
    monkeypatch.setattr(diffusion, "by_engine", it.by_engine)
    monkeypatch.setattr(diffusion, "by_calls", it.by_calls)
    monkeypatch.setattr(
        diffusion, "Peer", lambda size, device, channels_last=False: SimpleNamespace(channels_last=channels_last)
    )
    monkeypatch.setattr(diffusion, "Ours", lambda size, peer: SimpleNamespace(plain=nn.Linear(2, 3)))
    for name, answer in (("difference", 1e-5), ("row_flops", 10), ("matrix_rate", 1e3)):
        monkeypatch.setattr(diffusion, name, lambda *_, answer=answer: answer)


def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[dict[str, Any], str]:
    sizes = ["--side", "2", "--context", "3", "--tokens", "2", "--batch", str(BATCH), "--requests", str(REQUESTS)]
    end = ["--device", "cpu", "--json", "--out", str(tmp_path / "run")]
    assert main.main(["bench", "diffusion", *sizes, *args, *end]) == 0
    said = capsys.readouterr().out
    return json.loads(said.splitlines()[-1]), " ".join(said.split())


@pytest.mark.usefixtures("field")
def test_a_mixed_load_has_medians_of_three_rounds_of_ours_and_the_fastest_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 12 requests: ours 12, 8, 4 a second, grouped calls 3, 6, 2, all others 2.4."""
    found, said = run(tmp_path, capsys, "--no-memory")
    mixed = found["mixed"]
    assert (mixed["images_per_second"], mixed["peer"], mixed["peer_way"]) == (8, 3, "diffusers, grouped")
    assert (mixed["ratio"], mixed["rounds"]) == (pytest.approx(8 / 3), 3)
    assert mixed["ratio_spread"] == pytest.approx([8 / 6, 4])
    assert mixed["spread"][OURS] == pytest.approx([4, 12])
    assert mixed["spread"]["diffusers, grouped"] == pytest.approx([2, 6])
    rounds = {way: one["rounds"] for way, one in mixed["all"].items()}
    assert (rounds.pop(OURS), rounds.pop("diffusers, grouped"), set(rounds.values())) == (3, 3, {1})
    assert (mixed["all"]["diffusers, grouped"]["p50"], mixed["all"][OURS]["p99"]) == (4.0, 1.5)
    wanted = "3 rounds, least to most quincunx 4.000 to 12.000; diffusers, grouped 2.000 to 6.000; ours over it 1.33"
    assert f"{wanted} to 4.00; the peer's other ways served it once" in said


@pytest.mark.usefixtures("field")
def test_equal_requests_have_medians_of_rounds_of_everyone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, said = run(tmp_path, capsys, "--no-memory")
    equal, best = found["homogeneous"], "diffusers, channels last, 4 a call"
    assert (equal["ratio"], equal["peer_way"], equal["rounds"]) == (pytest.approx(4 / (8 / 6)), best, 3)
    assert equal["ratio_spread"] == pytest.approx([2 / (8 / 6), 8 / (8 / 6)])
    assert equal["spread"]["diffusers, 2 a call"] == [1, 1]
    assert f"quincunx 2.000 to 8.000; {best} 1.333 to 1.333; ours over it 1.50 to 6.00" in said


@pytest.mark.usefixtures("field")
def test_memory_is_of_the_way_that_was_fastest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Calls | None] = []

    def peak(size: Size, calls: Calls | None, device: str) -> float:
        asked.append(calls)
        return (100 + len(asked)) * 2.0**20

    monkeypatch.setattr(diffusion_memory, "peak", peak)
    found, said = run(tmp_path, capsys, "--rounds", "1")
    assert asked == [None, Calls(4, channels_last=True)]
    assert found["homogeneous"]["peer_calls"] == {"most": 4, "channels_last": True}
    assert list(found["memory"]) == [OURS, "diffusers, channels last, 4 a call"]
    assert "quincunx: 101 MiB; diffusers, channels last, 4 a call: 102 MiB" in said
    assert "one round every way served it once" in said


@pytest.mark.usefixtures("field")
@pytest.mark.parametrize(("memory", "parts"), [(["--no-memory"], 3), ([], 4)])
def test_progress_names_every_turn(
    memory: list[str],
    parts: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(console.Bar, "update", lambda self, completed, note="": told.append((completed, note)))
    monkeypatch.setattr(diffusion_memory, "peak", lambda *_: None)
    run(tmp_path, capsys, "--rounds", "2", *memory)
    calls = [f"{layout}, {most} a call" for layout in LAYOUTS.values() for most in (2, 4, 8)]
    loads = [f"{layout}, {kind}" for layout in LAYOUTS.values() for kind in ("one by one", "grouped")]
    first, second = [OURS, *calls], [*calls[::-1], OURS]
    wanted = [(0, "agreement")]
    wanted += [(1, f"one homogeneous batch, round 1 of 2, {way}") for way in first]
    wanted += [(1, f"one homogeneous batch, round 2 of 2, {way}") for way in second]
    wanted += [(2, f"a mixed load, round 1 of 2, {way}") for way in (OURS, *loads)]
    wanted += [(2, f"a mixed load, round 2 of 2, {way}") for way in ("diffusers, grouped", OURS)]
    assert told == [*wanted, *([(3, "memory")] if parts == 4 else []), (parts, "")]
