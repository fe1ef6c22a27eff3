"""`qx bench diffusion`: our engine beside diffusers' pipeline with the same weights, in one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import diffusion, diffusion_memory
from benchmarks.diffusion import AGREE
from benchmarks.diffusion_load import Size
from benchmarks.diffusion_ways import OURS, Calls
from lab import console, plots
from lab.run import next_free, write_json
from qx.jobs import WorkFailedError, device_of
from qx.usage import Common, UsageError, asked, parse

GREY = ("#8a949c", "#b3bbc1")  # of the peer's ways


@dataclass(frozen=True, kw_only=True)
class Diffusion(Common):
    """Images a second, latency and memory: our engine beside diffusers' StableDiffusionPipeline, the same weights."""

    size: Size = field(default_factory=Size)
    rounds: int = 3
    """Times that ours and the peer's fastest way serve each load, in turns; the medians count. More are steadier and
    take longer. Of the mixed load, the peer's other ways serve one round only."""
    memory: bool = True
    """Measure peak memory of ours and of the peer's fastest way to serve the equal batch, each in its own process."""


def bench(args: Sequence[str]) -> dict[str, Any]:
    """`qx bench diffusion`."""
    options = parse(Diffusion, args, "qx bench diffusion")
    size, device = options.size, device_of(options).type
    if min(size.side, size.tokens, size.batch, size.requests, size.steps, options.rounds) < 1 or size.rows < 2:
        names = "--side, --tokens, --batch, --requests, --steps, --rounds"
        raise UsageError(f"{names}: expected at least 1; --rows: at least 2, for a guided request")
    found: dict[str, Any] = {"device": device, "threads": torch.get_num_threads(), "size": asdict(size)}
    parts = ["agreement", "one homogeneous batch", "a mixed load", *["memory"] * options.memory]
    with console.progress("bench diffusion", len(parts)) as bar:
        bar.update(0, parts[0])
        with asked("the size of the network"):
            work = diffusion.measure(size, device, options.rounds)
            _, found["setting"] = next(work)
        apart = found["setting"]["difference"]
        if not apart <= AGREE:
            raise WorkFailedError(f"the latents of the two differ by {apart:.2g}: their times would compare nothing")
        out = options.out or next_free(Path("runs"), "bench-diffusion")
        out.mkdir(parents=True, exist_ok=True)
        done = 1
        for part, what in work:
            if isinstance(what, str):
                bar.update(done, f"{parts[done]}, {what}")
                continue
            found[part], done = what, done + 1
            write_json(out / "result.json", found)  # half an hour: what is found is kept, and said
            SAID[part](found)
        if options.memory:
            bar.update(done, parts[done])
            equal = found["homogeneous"]
            ways = {OURS: None, equal["peer_way"]: Calls(**equal["peer_calls"])}
            peaks = {way: diffusion_memory.peak(size, calls, device) for way, calls in ways.items()}
            found["memory"] = {way: peak for way, peak in peaks.items() if peak is not None}
        bar.update(len(parts))
    _say_rest(found)
    _picture(found, out / "report.png")
    found["run"] = str(out)
    write_json(out / "result.json", found)
    console.out.print(f"[dim]picture[/]  {out / 'report.png'}", soft_wrap=True)
    return found


def _say_homogeneous(found: Mapping[str, Any]) -> None:
    size, equal = found["size"], found["homogeneous"]
    where = f"{found['device']}, {found['threads']} threads"
    rows = [
        [way, f"{rate:.2f}", f"{equal['images_per_second'] / rate:.2f}", f"{equal['share_of_matrix_rate'][way]:.0%}"]
        for way, rate in equal["all"].items()
    ]
    title = f"one batch of {size['batch']}, {size['steps']} steps, guidance 7.5 ({where})"
    console.table(title, ["", "images/s", "ours over it", "of the matrix rate"], rows)
    _say_spread(equal)


def _say_mixed(found: Mapping[str, Any]) -> None:
    size, mixed = found["size"], found["mixed"]
    rows = [
        [
            way,
            f"{one['images_per_second']:.3f}",
            f"{mixed['images_per_second'] / one['images_per_second']:.2f}",
            f"{one['p50']:.1f}",
            f"{one['p99']:.1f}",
        ]
        for way, one in mixed["all"].items()
    ]
    title = f"a mixed load of {size['requests']}: 10 to 50 steps, guidance 1, 3, 7.5, 4 solvers; latency from arrival"
    console.table(title, ["", "images/s", "ours over it", "median, s", "99%, s"], rows)
    _say_spread(mixed, "; the peer's other ways served it once")


def _say_spread(part: Mapping[str, Any], others: str = "") -> None:
    """The least and the most of ours and of the peer's way that counts, and what is to be said of its others."""
    if part["rounds"] == 1:
        console.out.print("[dim]one round[/]  every way served it once")
        return
    rates = "; ".join("{} {:.3f} to {:.3f}".format(way, *part["spread"][way]) for way in (OURS, part["peer_way"]))
    ratio = "{:.2f} to {:.2f}".format(*part["ratio_spread"])
    words = f"{rates}; ours over it {ratio}{others}"
    console.out.print(f"[dim]medians of {part['rounds']} rounds, least to most[/]  {words}", soft_wrap=True)


def _say_rest(found: Mapping[str, Any]) -> None:
    if found.get("memory"):
        words = "; ".join(f"{way}: {peak / 2**20:,.0f} MiB" for way, peak in found["memory"].items())
        console.out.print(f"[dim]peak memory of a batch[/]  {words}", soft_wrap=True)
    setting = found["setting"]
    words = f"{setting['difference']:.1e} of a standard deviation, at most, in 10 steps guided at 3"
    console.out.print(f"[dim]latents apart by[/]  {words}; {setting['parameters']:,} weights", soft_wrap=True)


SAID = {"homogeneous": _say_homogeneous, "mixed": _say_mixed}


def _picture(found: Mapping[str, Any], path: Path) -> None:
    """`report.png`: images a second of every way, and latencies of the mixed load."""
    equal, mixed = found["homogeneous"]["all"], found["mixed"]["all"]
    made, axes = plots.figure(1, 3, width=4.4, height=1.0 + 0.48 * max(len(equal), len(mixed)))
    for ax, rates, title in (
        (axes[0], equal, "one homogeneous batch"),
        (axes[1], {way: one["images_per_second"] for way, one in mixed.items()}, "a mixed load"),
    ):
        colours = [plots.COLOURS[0] if way == OURS else GREY[i % 2] for i, way in enumerate(rates)]
        ax.barh(range(len(rates)), list(rates.values()), color=colours)
        ax.set_yticks(range(len(rates)), _two_lines(rates))
        ax.invert_yaxis()
        plots.label(ax, title, "images a second")
    for i, (way, one) in enumerate(mixed.items()):
        colour = plots.COLOURS[0] if way == OURS else GREY[i % 2]
        axes[2].barh([i - 0.2, i + 0.2], [one["p50"], one["p99"]], height=0.36, color=colour)
    axes[2].set_yticks(range(len(mixed)), _two_lines(mixed))
    axes[2].invert_yaxis()
    plots.label(axes[2], "latency: median (above), 99%", "seconds")
    plots.save(made, path)


def _two_lines(ways: Iterable[str]) -> list[str]:
    return ["\n".join(part for part in way.rpartition(", ")[::2] if part) for way in ways]
