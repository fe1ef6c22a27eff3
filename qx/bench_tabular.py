"""`qx bench tabular`: many replicas of tabular Q-learning beside loops that train one, in one run on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import tabular
from lab import console
from lab.run import next_free, write_json
from qx.jobs import device_of
from qx.usage import Common, parse


@dataclass(frozen=True, kw_only=True)
class Tabular(Common):
    """Seconds of many replicas of tabular Q-learning on FrozenLake-v1 over those of loops that train one.

    Judged is the textbook's loop, with Gymnasium and numpy; beside it stands one of bare Python, on lists.
    """

    steps: int = 20_000
    """Steps of each learner. Longer is steadier."""
    replicas: int = 1_000
    """Learners of ours, side by side. More take longer, in proportion."""
    worlds: int = 1
    """Worlds that each of ours acts in; the loops have one. More share what a turn costs besides its steps."""
    repeats: int = 3
    """How often each is measured, by turns; the fastest counts. More is steadier."""


def bench(args: Sequence[str]) -> dict[str, Any]:
    """`qx bench tabular`."""
    o = parse(Tabular, args, "qx bench tabular")
    device = device_of(o).type
    found = tabular.measure(o.steps, o.replicas, o.worlds, repeats=o.repeats, device=device)
    rows = [
        [f"quincunx, {o.replicas:,} replicas", *_words(found, "ours")],
        ["the same, without reports on the way", *_words(found, "silent")],
        ["the textbook's loop, one: Gymnasium and numpy", *_words(found, "python")],
        ["a loop of bare Python, one: lists", *_words(found, "bare")],
    ]
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''} of ours, 1 of each loop"
    title = f"Q-learning on {tabular.WORLD}, {o.steps:,} steps each ({device}, {threads})"
    console.table(title, ["", "seconds", "updates a second"], rows)
    judged = f"[dim]seconds, ours over the textbook's (judged)[/]  {found['ratio']:.2f}"
    silent = f"[dim]without reports, as the loops[/]  {found['silent_ratio']:.2f}"
    bare = f"[dim]over bare Python's[/]  {found['bare_ratio']:.2f}"
    console.out.print(f"{judged}  {silent}  {bare}", soft_wrap=True)
    out = o.out or next_free(Path("runs"), "bench-tabular")
    out.mkdir(parents=True, exist_ok=True)
    found |= {"device": device, "run": str(out)}
    write_json(out / "result.json", found)
    return found


def _words(found: dict[str, Any], who: str) -> list[str]:
    return [f"{found[f'{who}_seconds']:.3f}", f"{found[f'{who}_updates_per_second']:,.0f}"]
