"""`qx bench diffusion`: our engine beside diffusers' pipeline with the same weights, in one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import diffusion, diffusion_memory
from benchmarks.diffusion import AGREE, OURS, PEER
from benchmarks.diffusion_load import Size
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
    """Homogeneous batches that each way makes, in turns. More are steadier."""
    memory: bool = True
    """Measure peak memory, in two processes of their own."""


def bench(args: Sequence[str]) -> dict[str, Any]:
    """`qx bench diffusion`."""
    options = parse(Diffusion, args, "qx bench diffusion")
    size, device = options.size, device_of(options).type
    if min(size.side, size.tokens, size.batch, size.requests, size.steps, options.rounds) < 1 or size.rows < 2:
        raise UsageError("--size.*, --rounds: expected at least 1, and 2 rows for guided requests")
    found: dict[str, Any] = {"device": device, "threads": torch.get_num_threads(), "size": asdict(size)}
    parts = ["agreement", "one homogeneous batch", "a mixed load", "memory"]
    with console.progress("bench diffusion", len(parts)) as bar:
        bar.update(0, parts[0])
        with asked("the size of the network"):
            work = diffusion.measure(size, device, options.rounds)
            found["setting"] = next(work)[1]
        apart = found["setting"]["difference"]
        if not apart <= AGREE:
            raise WorkFailedError(f"the latents of the two differ by {apart:.2g}: their times would compare nothing")
        out = options.out or next_free(Path("runs"), "bench-diffusion")
        out.mkdir(parents=True, exist_ok=True)
        bar.update(1, parts[1])
        for done, (part, what) in enumerate(work, 2):
            found[part] = what
            write_json(out / "result.json", found)  # half an hour: what is found is kept, and said
            SAID[part](found)
            bar.update(done, parts[min(done, 3)])
        if options.memory:
            peaks = {way: diffusion_memory.peak(size, way, device) for way in (OURS, PEER)}
            found["memory"] = {way: peak for way, peak in peaks.items() if peak is not None}
        bar.update(4)
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


def _say_rest(found: Mapping[str, Any]) -> None:
    if found.get("memory"):
        words = ", ".join(f"{way} {peak / 2**20:,.0f} MiB" for way, peak in found["memory"].items())
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
