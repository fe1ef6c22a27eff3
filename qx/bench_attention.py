"""`qx bench attention`: our Transformer beside Hugging Face's Llama of equal size and weights, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks import attention, attention_memory
from benchmarks.attention import AGREE, DTYPES, OURS, PEER, Result, Size
from lab import console, plots
from lab.run import next_free, write_json
from qx.jobs import WorkFailedError, device_of
from qx.usage import Common, UsageError, asked, parse

JOBS = ("forward", "training", "generation")
GREY = ("#8a949c", "#b3bbc1", "#d0d5d9")  # of the peer's ways


@dataclass(frozen=True, kw_only=True)
class Attention(Common):
    """Tokens a second and peak memory, ours beside Hugging Face's Llama: forward, training, cached generation."""

    size: Size = field(default_factory=Size)
    seconds: float = 10.0
    """How long to measure each job. Longer is steadier."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights of both."""
    compile: bool = False
    """Measure the peer under torch.compile too. Takes minutes longer."""
    memory: bool = True
    """Measure peak memory, in six processes of their own."""


def bench(args: Sequence[str]) -> dict[str, Any]:
    """`qx bench attention`."""
    options = parse(Attention, args, "qx bench attention")
    size, device = options.size, device_of(options).type
    if size.prompt < 1 or size.new < 1 or not size.rows:
        raise UsageError("--prompt, --new and --rows: expected at least 1 token and one number of rows")
    generator = torch.Generator().manual_seed(options.seed)
    with asked("the size of the model"):
        model = attention.ours(size, generator)
    other, kind = attention.peer(size, model).to(DTYPES[options.dtype]).to(device), DTYPES[options.dtype]
    model = model.to(device=device, dtype=kind)
    apart = attention.difference(model, other, attention.words(size, 2, size.length, generator).to(device))
    if not apart <= AGREE[options.dtype]:
        raise WorkFailedError(f"the logits of the two models differ by {apart:.2g}: their times would compare nothing")
    results: list[Result] = []
    memory: dict[str, dict[str, float]] = {}
    work = [("forward", 0), ("training", 0), *(("generation", rows) for rows in size.rows)]
    with console.progress("bench attention", len(work) + 6 * options.memory) as bar:
        for done, (job, rows) in enumerate(work):
            bar.update(done, job)
            shape = (rows, size.prompt) if rows else (size.batch, size.length)
            tokens = attention.words(size, *shape, generator).to(device)
            calls = attention.ways(model, other, job, tokens, size.new, compiled=options.compile)
            count = rows * size.new if rows else tokens.numel()
            name = f"{job} x{rows}" if rows else job
            try:
                results += attention.measure(name, calls, count, options.seconds, device, exact=kind == torch.float32)
            except ValueError as error:
                raise WorkFailedError(str(error)) from None
        for job in JOBS if options.memory else ():
            for way in (OURS, PEER):
                bar.update(len(work) + sum(map(len, memory.values())), f"memory of {job}")
                peak = attention_memory.peak(size, way, job, device, options.dtype)
                if peak is not None:
                    memory.setdefault(job, {})[way] = peak
    ratios = _ratios(results)
    best = attention.fastest(device, options.dtype)
    work_of_token = attention.operations(size)
    reached = {r.way: r.tokens_per_second * work_of_token for r in results if r.job == "forward"}
    found: dict[str, Any] = {
        "device": device,
        "dtype": options.dtype,
        "threads": torch.get_num_threads(),
        **{job: min(ratio for name, ratio in ratios.items() if name.split()[0] == job) for job in JOBS},
        "ratios": ratios,
        "memory_ratio": {job: both[OURS] / both[PEER] for job, both in memory.items()},
        "memory": memory,
        "tokens_per_second": {
            job: {r.way: r.tokens_per_second for r in results if r.job == job} for job in dict.fromkeys(_jobs(results))
        },
        "gflops": {way: rate / 1e9 for way, rate in reached.items()},
        "peak_gflops": best / 1e9,
        "logits_apart": apart,
        "size": asdict(size),
        "results": [asdict(result) for result in results],
    }
    _say(found)
    out = options.out or next_free(Path("runs"), "bench-attention")
    out.mkdir(parents=True, exist_ok=True)
    _picture(found, out / "report.png")
    write_json(out / "result.json", {**found, "run": str(out)})
    console.out.print(f"[dim]picture[/]  {out / 'report.png'}", soft_wrap=True)
    return {**found, "run": str(out)}


def _jobs(results: Sequence[Result]) -> list[str]:
    return [result.job for result in results]


def _ratios(results: Sequence[Result]) -> dict[str, float]:
    """Ours over the fastest of the peer's ways that nothing compiled, for each job."""
    rate = {(r.job, r.way): r.tokens_per_second for r in results}
    fastest = {
        job: max(x for (j, way), x in rate.items() if j == job and way != OURS and not way.endswith("compiled"))
        for job in dict.fromkeys(_jobs(results))
    }
    return {job: rate[job, OURS] / theirs for job, theirs in fastest.items()}


def _say(found: Mapping[str, Any]) -> None:
    """A row for each job and way: tokens a second, ours over it, and peak memory where it was measured."""
    rates, memory = found["tokens_per_second"], found["memory"]
    rows = []
    for job, rate in rates.items():
        both = memory.get(job.split()[0], {}) if not job.startswith("generation") or job == _largest(rates) else {}
        for way, x in rate.items():
            peak = f"{both[way] / 2**20:,.0f}" if way in both else "-"
            rows.append([job if way == OURS else "", way, f"{x:,.0f}", f"{rate[OURS] / x:.2f}", peak])
    header = ["", "", "tokens a second", "ours over it", "MiB"]
    where = f"{found['device']}, {found['dtype']}, {found['threads']} threads"
    console.table(f"tokens a second and peak memory ({where})", header, rows)
    gflops, peak = found["gflops"], found["peak_gflops"]
    console.out.print(
        f"[dim]forward reaches[/]  {gflops[OURS]:,.0f} GFLOP/s, the peer's {gflops[PEER]:,.0f};"
        f" a square matrix product {peak:,.0f}",
        soft_wrap=True,
    )
    console.out.print(f"[dim]logits apart by[/]  {found['logits_apart']:.1e} at most", soft_wrap=True)


def _largest(rates: Mapping[str, Any]) -> str:
    """The generation of most rows: the one whose memory is measured."""
    return max((job for job in rates if job.startswith("generation")), key=lambda job: int(job.rpartition("x")[2]))


def _picture(found: Mapping[str, Any], path: Path) -> None:
    """A panel for each job: tokens a second by way, ours in colour, our ratio in the title; then peak memory."""
    jobs, memory = list(found["ratios"]), found["memory"]
    made, axes = plots.figure(1, len(jobs) + bool(memory), width=2.7, height=3.2)
    for ax, job in zip(axes, jobs, strict=False):
        rate = found["tokens_per_second"][job]
        _bars(ax, {_short(way): x for way, x in rate.items()}, "{:,.0f}")
        plots.label(ax, f"{job}: {found['ratios'][job]:.2f}x", "", "tokens a second" if job == jobs[0] else "")
    if memory:
        ax = axes[-1]
        for k, way in enumerate((OURS, PEER)):
            at = [i + (k - 0.5) * 0.4 for i in range(len(memory))]
            peaks = [both[way] / 2**20 for both in memory.values()]
            drawn = ax.bar(at, peaks, width=0.36, color=plots.COLOURS[0] if way == OURS else GREY[0])
            ax.bar_label(drawn, labels=[f"{x:,.0f}" for x in peaks], padding=2, fontsize=7)
        ax.set_xticks(range(len(memory)), list(memory), fontsize=8)
        ax.margins(y=0.15)
        ax.grid(axis="x", visible=False)
        plots.label(ax, "peak memory", "", "MiB above an empty process")
    size = found["size"]
    made.suptitle(
        f"{OURS} beside Hugging Face's Llama, equal weights: {size['depth']} blocks of {size['width']},"
        f" {size['vocabulary']:,} tokens; {found['device']}, {found['dtype']}",
        x=0.01,
        ha="left",
        fontsize=10,
        color=plots.INK,
    )
    plots.save(made, path)


def _short(way: str) -> str:
    return way.replace(f"{PEER}, ", "its ").replace(" cache", "\ncache").replace(", compiled", ",\ncompiled")


def _bars(ax: Any, values: Mapping[str, float], form: str) -> None:
    colours = [plots.COLOURS[0], *GREY]
    drawn = ax.bar(list(values), list(values.values()), color=colours[: len(values)], width=0.62)
    ax.bar_label(drawn, labels=[form.format(x) for x in values.values()], padding=2, fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    ax.margins(y=0.12)
    ax.grid(axis="x", visible=False)
