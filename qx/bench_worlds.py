"""`qx bench worlds`: random steps a second, ours beside the peers, in one run on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks import worlds
from benchmarks.worlds import Result
from lab import console, plots
from lab.run import next_free, write_json
from qx.jobs import device_of
from qx.usage import Common, parse

STYLES = ("-", "--", ":")  # of the lines of one colour


@dataclass(frozen=True, kw_only=True)
class Worlds(Common):
    """Random steps a second with resets, ours beside Gymnasium, MiniGrid, navix, gymnax and xland-minigrid."""

    seconds: float = 1.0
    """How long to measure each number. Longer is steadier."""
    sizes: tuple[int, ...] = worlds.SIZES
    """Numbers of worlds stepped together. More of them take longer."""
    peers: tuple[Literal["gymnasium", "minigrid", "navix", "gymnax", "xminigrid"], ...] = (
        "gymnasium",
        "minigrid",
        "navix",
        "gymnax",
        "xminigrid",
    )
    """Which to measure beside ours, each with the Python of QX_PEERS_PYTHON or .venv-peers, or else our own."""


def bench(args: Sequence[str]) -> dict[str, Any]:
    """`qx bench worlds`."""
    options = parse(Worlds, args, "qx bench worlds")
    device = device_of(options).type
    sizes, ours = sorted(set(options.sizes)), worlds.ours(device)
    results: list[Result] = []
    with console.progress("bench worlds", (len(options.peers) + len(ours)) * len(sizes)) as bar:
        for name in options.peers:
            bar.update(len(results), worlds.PEERS[name])
            results += worlds.peer(name, sizes, options.seconds)
        for way in ours:
            for result in worlds.measure(way, sizes, options.seconds, device):
                results.append(result)
                bar.update(len(results), way.name)
    _table(results, sizes, device)
    ratios = _ratios(results, device)
    for words, ratio in ratios.items():
        console.out.print(f"[dim]{words}[/]  {ratio:,.1f}x", soft_wrap=True)
    out = options.out or next_free(Path("runs"), "bench-worlds")
    out.mkdir(parents=True, exist_ok=True)
    _picture(results, device, out / "report.png")
    found = {"device": device, "results": [asdict(result) for result in results], "ratios": ratios, "run": str(out)}
    write_json(out / "result.json", found)
    console.out.print(f"[dim]picture[/]  {out / 'report.png'}", soft_wrap=True)
    return found


def _table(results: Sequence[Result], sizes: Sequence[int], device: str) -> None:
    """A row for each way to step, a column for each number of worlds; below it, why something is missing."""
    cells = {(result.name, result.worlds): result for result in results}
    names = list(dict.fromkeys(result.name for result in results))
    rows = [[name, *(_words(cells[name, n].steps_per_second) for n in sizes)] for name in names]
    console.table(f"random steps a second, by worlds stepped together ({device})", ["", *map(_size, sizes)], rows)
    for name in names:
        missing: dict[str, list[int]] = {}
        for n in sizes:
            if cells[name, n].steps_per_second is None:
                missing.setdefault(cells[name, n].note, []).append(n)
        for note, which in missing.items():
            where = ", ".join(map(_size, which))
            console.out.print(f"[dim]{console.escape(f'{name} at {where}: not measured ({note})')}[/]", soft_wrap=True)


def _size(worlds: int) -> str:
    """A number of worlds in few letters: 256, 4Ki, 1Mi."""
    for size, letters in ((2**20, "Mi"), (2**10, "Ki")):
        if worlds >= size and worlds % size == 0:
            return f"{worlds // size}{letters}"
    return str(worlds)


def _words(rate: float | None) -> str:
    """A rate in at most three digits: 96k, 10.4M, 1.23G."""
    if rate is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= size:
            return f"{rate / size:.{2 if rate < 10 * size else 1 if rate < 100 * size else 0}f}{letter}"
    return f"{rate:.3g}"


def _ratios(results: Sequence[Result], device: str) -> dict[str, float]:
    """Our best over the best of the JAX peers, and over Gymnasium's; only those that were measured."""
    where = "" if device == "cpu" else f" on {device}, theirs on the CPU"

    def best(names: Sequence[str]) -> float:
        return max((r.steps_per_second or 0.0 for r in results if r.name in names), default=0.0)

    def mine(world: str) -> float:
        return best([r.name for r in results if r.name.startswith(f"quincunx {world}")])

    against = {
        f"our fastest world over the fastest JAX peer's{where}": (
            mine(""),
            best([worlds.PEERS[n] for n in worlds.JAX]),
        ),
        f"our four rooms over gymnax's{where}": (mine("four rooms"), best([worlds.PEERS["gymnax"]])),
        f"our FrozenLake over Gymnasium's{where}": (mine("FrozenLake"), best([worlds.PEERS["gymnasium"]])),
    }
    return {words: ours / theirs for words, (ours, theirs) in against.items() if ours and theirs}


def _picture(results: Sequence[Result], device: str, path: Path) -> None:
    """Steps a second by worlds, both axes logarithmic; ours in colours, the peers in grey."""
    made, (ax,) = plots.figure(1, 1, width=8.0, height=4.6)
    names = list(dict.fromkeys(r.name for r in results if r.steps_per_second))
    counts = {True: 0, False: 0}
    for name in names:
        points = [(r.worlds, r.steps_per_second) for r in results if r.name == name and r.steps_per_second]
        ours = name.startswith("quincunx")
        k, counts[ours] = counts[ours], counts[ours] + 1
        ax.plot(
            *zip(*points, strict=True),
            color=plots.COLOURS[k % len(plots.COLOURS)] if ours else "#8a949c",
            linestyle="-" if ours else STYLES[k % len(STYLES)],
            marker="o" if ours else "sv^Dx"[k % 5],
            markersize=3.5,
            linewidth=1.8 if ours else 1.2,
            label=name,
        )
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    plots.label(ax, f"random steps a second, episodes beginning anew ({device})", "worlds stepped together")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, labelcolor=plots.INK)
    plots.save(made, path)
