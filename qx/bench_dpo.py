"""`qx bench dpo`: our DPO beside trl's, the same model and pairs, in one run."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks import dpo
from benchmarks.dpo import AGREE, DEFAULT, PATCHED, Measured
from benchmarks.dpo_load import Size
from lab import console, plots
from lab.run import next_free, write_json
from qx.jobs import WorkFailedError, device_of
from qx.usage import Common, UsageError, parse

Found = TypeVar("Found")
GREY = ("#8a949c", "#b3bbc1")  # of the peer's ways


@dataclass(frozen=True, kw_only=True)
class Dpo(Common):
    """Pairs a second and peak memory of an epoch of DPO: ours beside trl's, as it comes and at its best settings.

    On a CPU also beside trl with one name replaced, which spares it a fallback; see benchmarks/dpo.py.
    """

    size: Size = field(default_factory=Size)
    vocabularies: tuple[int, ...] = (32_000, 128_000)
    """Numbers of tokens; each is measured, in place of that of the size."""
    rounds: int = 3
    """Epochs of ours, of trl's default and of its fastest settings, also patched, in turns; the medians count. Trl's
    other settings train one."""
    ablation: bool = True
    """Measure ours without each of the things that make it fast too, at the first vocabulary."""


def bench(args: Sequence[str]) -> dict[str, Any]:
    """`qx bench dpo`."""
    options = parse(Dpo, args, "qx bench dpo")
    size, device = options.size, device_of(options).type
    _check(options)
    if importlib.util.find_spec("trl") is None:
        raise WorkFailedError("the peer is not here: pip install 'quincunx[bench]'")
    found: dict[str, Any] = {"device": device, "threads": torch.get_num_threads(), "size": asdict(size)}
    out = options.out or next_free(Path("runs"), "bench-dpo")
    out.mkdir(parents=True, exist_ok=True)
    found["vocabularies"] = {}
    left = dpo.epochs(device, options.rounds) * len(options.vocabularies) + 6 * options.ablation
    with console.progress("bench dpo", left) as bar:
        turns = itertools.count()
        for words in options.vocabularies:
            for turn, measured in _followed(dpo.measure(replace(size, vocabulary=words), device, options.rounds)):
                if turn:
                    bar.update(next(turns), f"{words:,} tokens, {turn}")
                found["vocabularies"][str(words)] = told = {
                    "all": {name: _row(each) for name, each in measured.items()}
                }
                write_json(out / "result.json", found)  # what is found is kept, whatever comes then
            told |= _told(measured)
            write_json(out / "result.json", found)
            _say(words, told, found)
        if options.ablation:
            first = replace(size, vocabulary=options.vocabularies[0])
            for turn, alone in _followed(dpo.ablation(first, device)):
                if turn:
                    bar.update(next(turns), f"ours {turn}")
                found["ablation"] = {name: _row([one]) for name, one in alone.items()}
                write_json(out / "result.json", found)
            _say_ablation(options.vocabularies[0], found["ablation"])
        bar.update(left)
    each = list(found["vocabularies"].values())
    for worst, what in ((min, "speed_ratio"), (max, "memory_ratio")):
        for key in (what, f"best_{what}", f"patched_{what}"):
            if all(key in one for one in each):
                found[key] = worst(one[key] for one in each)
    found["run"] = str(out)
    write_json(out / "result.json", found)
    _picture(found, out / "report.png")
    console.out.print(f"[dim]picture[/]  {out / 'report.png'}", soft_wrap=True)
    return found


def _check(options: Dpo) -> None:
    """Raises UsageError for sizes that there are not."""
    size = options.size
    if options.rounds < 1 or not options.vocabularies or min(options.vocabularies) < 3:
        raise UsageError("--rounds: expected at least 1; --vocabularies: one at least, of 3 tokens or more")
    if min(size.width, size.depth, size.heads, size.hidden, size.batch) < 1 or size.width % (2 * size.heads):
        names = "--width, --depth, --heads, --hidden, --batch"
        raise UsageError(f"{names}: expected at least 1, and heads of an even width that fill the width")
    if size.pairs < size.batch or size.pairs % size.batch:
        raise UsageError(f"--pairs {size.pairs}: expected a multiple of the batch of {size.batch}")
    for name in ("prompt", "completion"):
        least, most = getattr(size, name)
        if not 1 <= least <= most:
            raise UsageError(f"--{name} {least} {most}: expected the least length, 1 or more, and the most")


def _followed(work: Iterator[tuple[str, Found]]) -> Iterator[tuple[str, Found]]:
    """What the work yields. Raises WorkFailedError where a way fails."""
    try:
        yield from work
    except RuntimeError as error:
        raise WorkFailedError(str(error)) from None


def _told(measured: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """Ratios, and how far the numbers of both are apart. Raises WorkFailedError where too far."""
    apart = {kind: dpo.apart(measured, kind) for kind in AGREE}
    for kind, difference in apart.items():
        if not difference <= AGREE[kind]:
            raise WorkFailedError(f"in {kind} the two differ by {difference:.2g}: their times would compare nothing")
    return {**dpo.compared(measured), "apart": apart}


def _row(measured: Sequence[Measured]) -> dict[str, Any]:
    return {"pairs_per_second": dpo.rate(measured), "peak": dpo.peak(measured), "epochs": len(measured)}


def _say(words: int, told: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """A table of the ways at one vocabulary, and the ratios."""
    ways = told["all"]
    mine = ways[told["ours_best"]]
    rows = [
        [name, f"{one['pairs_per_second']:.2f}", f"{mine['pairs_per_second'] / one['pairs_per_second']:.2f}",
         _mebibytes(one["peak"])]
        for name, one in ways.items()
    ]  # fmt: skip
    where = f"{found['device']}, {found['threads']} threads"
    if rank := found["size"]["lora_rank"]:
        where += f", adapters of rank {rank}"
    console.table(f"DPO, {words:,} tokens ({where})", ["", "pairs/s", "our best over it", "peak, MiB"], rows)
    for what, other, least in (
        ("", DEFAULT, DEFAULT),
        ("best_", told["peer_best"], told["peer_least"]),
        ("patched_", f"{told['peer_best']}, patched", PATCHED),
    ):
        if f"{what}speed_ratio" in told:
            speed, (low, high) = told[f"{what}speed_ratio"], told[f"{what}speed_ratio_spread"]
            line = f"{speed:.2f} times {other} ({low:.2f} to {high:.2f})"
            if f"{what}memory_ratio" in told:
                line += f"; memory {told[f'{what}memory_ratio']:.3f} of {least}"
            console.out.print(f"[dim]medians of {told['rounds']}[/]  {line}", soft_wrap=True)
    apart = ", ".join(f"{kind} {value:.1e}" for kind, value in told["apart"].items())
    console.out.print(f"[dim]losses and log-probabilities apart by[/]  {apart}", soft_wrap=True)


def _say_ablation(words: int, rows: Mapping[str, Any]) -> None:
    whole = rows["all four"]["pairs_per_second"]
    table = [
        [name, f"{one['pairs_per_second']:.2f}", f"{one['pairs_per_second'] / whole:.2f}", _mebibytes(one["peak"])]
        for name, one in rows.items()
    ]
    console.table(f"ours, {words:,} tokens, one epoch each", ["", "pairs/s", "of all", "peak, MiB"], table)


def _mebibytes(peak: float | None) -> str:
    return "-" if peak is None else f"{peak / 2**20:,.0f}"


def _picture(found: Mapping[str, Any], path: Path) -> None:
    """`report.png`: for each vocabulary pairs a second and peak memory of every way; below, ours without each thing."""
    panels = [
        (f"{int(words):,} tokens", told["all"], told["ours_best"]) for words, told in found["vocabularies"].items()
    ]
    if "ablation" in found:
        panels.append((f"ours, {int(next(iter(found['vocabularies']))):,} tokens", found["ablation"], "all four"))
    made, axes = plots.figure(len(panels), 2, width=4.6, height=2.7)
    for row, (title, ways, mine) in enumerate(panels):
        colours = [
            plots.COLOURS[0] if name == mine or name.startswith("quincunx") else GREY[i % 2]
            for i, name in enumerate(ways)
        ]
        for column, (key, unit, scale) in enumerate(
            (("pairs_per_second", "pairs a second", 1.0), ("peak", "peak memory, MiB", 2.0**-20))
        ):
            ax = axes[2 * row + column]
            ax.barh(range(len(ways)), [(one[key] or 0.0) * scale for one in ways.values()], color=colours)
            ax.set_yticks(range(len(ways)), list(ways) if not column else [""] * len(ways))
            ax.invert_yaxis()
            plots.label(ax, title if not column else "", unit)
    plots.save(made, path)
