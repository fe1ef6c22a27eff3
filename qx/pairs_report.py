"""How long the chosen and the rejected sides of a preference file are, and by how much they differ, as histograms.

Whole numbers fall into bins of one width s on either side of zero, which has a bin of its own: v falls into bin
sign(v) ceil(|v| / s), so that bin 1 holds 1 ... s and bin -1 holds -s ... -1. The width is 1, 2 or 5 times a power of
ten, the least with which all but the outermost hundredths of the numbers fit into `BINS` bins; what is left over falls
into one more at either end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from matplotlib.axes import Axes

from generative.preference.preflight import DOUBTFUL, UNTEACHING, Checked
from lab import console, plots
from qx.curves import SIDES

BINS = 10
OUTERMOST = 0.01  # share of the numbers, at either end
BAR = 20  # characters of the longest bar


@dataclass(frozen=True)
class Histogram:
    """How many numbers of some sets are in each bin."""

    title: str
    names: tuple[str, ...]
    """Of the sets."""
    bins: tuple[str, ...]
    """The numbers that each bin holds, in words."""
    counts: Int64[np.ndarray, "sets bins"]


def histogram(title: str, **sets: Int64[np.ndarray, "..."]) -> Histogram:
    """Count the numbers of each set, one at least, in bins that all sets share."""
    low, high = np.quantile(np.concatenate(list(sets.values())), (OUTERMOST, 1 - OUTERMOST), method="nearest")
    width = next(width for width in _widths() if _bin(high, width) - _bin(low, width) < BINS)
    first, last = int(_bin(low, width)), int(_bin(high, width))
    places = [np.clip(_bin(numbers, width), first - 1, last + 1) - first + 1 for numbers in sets.values()]
    counts = np.stack([np.bincount(place, minlength=last - first + 3) for place in places])
    inside = [_words(*_ends(place, width)) for place in range(first, last + 1)]
    words = [f"less than {_ends(first, width)[0]}", *inside, f"more than {_ends(last, width)[1]}"]
    begin, end = int(not counts[:, 0].any()), len(words) - int(not counts[:, -1].any())
    return Histogram(title, tuple(sets), tuple(words[begin:end]), counts[:, begin:end])


def histograms(checked: Checked) -> list[Histogram]:
    """Of the usable pairs: how long either side is, and the chosen less the rejected. None where no pair is usable."""
    if not checked.lengths:
        return []
    unit = "tokens" if checked.tokens else "characters"
    _, chosen, rejected = np.asarray(checked.lengths).T
    return [
        histogram(f"length of completions, {unit}", chosen=chosen, rejected=rejected),
        histogram(f"chosen less rejected length, {unit}", pairs=chosen - rejected),
    ]


def say(file: Path, checked: Checked) -> None:
    """Print how many rows can teach, what is dropped and what is only doubtful, with the first row of each."""
    found = checked.findings
    chats = f", {found.chats:,} of them chats" if found.chats else ""
    head = f"[bold]{console.escape(str(file))}[/]: {found.usable:,} of {found.pairs:,} rows can teach{chats}"
    console.out.print(head, soft_wrap=True)
    for title, kinds in (("dropped", UNTEACHING), ("kept, but doubtful", DOUBTFUL)):
        met = [kind for kind in kinds if kind in found.first]
        if met:
            console.out.print(f"[bold]{title}")
        for kind in met:
            words = f"{getattr(found, kind):>8,}  {kind.replace('_', ' ')}; the first: {found.first[kind]}"
            console.out.print(console.escape(words), soft_wrap=True)
    if found.usable:
        if not checked.tokens:
            console.out.print("[dim]not looked at: what a tokenizer merges, refuses or cuts; --model counts it")
        unit = "tokens" if checked.tokens else "characters"
        sides = f"chosen {found.chosen_length:g}, rejected {found.rejected_length:g} {unit}"
        longer = f"in {found.chosen_longer:.0%} of the pairs the chosen side is the longer"
        console.out.print(f"median length: {sides}; {longer}", soft_wrap=True)


def show(checked: Checked) -> None:
    """Print the histograms: a count and a bar for each bin."""
    for each in histograms(checked):
        most = int(each.counts.max())
        rows = [
            [words, *(cell for number in numbers for cell in (str(number), _bar(number / most)))]
            for words, numbers in zip(each.bins, each.counts.T.tolist(), strict=True)
        ]
        console.out.print(f"\n[bold]{each.title}", soft_wrap=True)  # wider than a narrow table
        console.table("", ["", *(head for name in each.names for head in (name, ""))], rows)


def draw(checked: Checked, path: Path) -> None:
    """Write the same as a PNG; nothing where no pair is usable."""
    found = histograms(checked)
    if not found:
        return
    made, axes = plots.figure(1, len(found), width=4.8, height=3.4)
    for ax, each in zip(axes, found, strict=True):
        panel(ax, each)
    plots.save(made, path)


def panel(ax: Axes, drawn: Histogram) -> None:
    """One histogram, a bar beside the other for each set."""
    place, height = np.arange(len(drawn.bins)), 0.8 / len(drawn.names)
    for i, (name, counts) in enumerate(zip(drawn.names, drawn.counts, strict=True)):
        colour = plots.COLOURS[SIDES.get(name, 0)]
        ax.barh(place + (i + 0.5) * height - 0.4, counts, height=height, color=colour, label=name)
    ax.set_yticks(place, drawn.bins)
    ax.invert_yaxis()  # the least above, as in the table
    ax.grid(axis="y", visible=False)
    plots.label(ax, drawn.title, "pairs")
    if len(drawn.names) > 1:
        plots.legend(ax)


def _bin(numbers: Int64[np.ndarray, "..."], width: int) -> Int64[np.ndarray, "..."]:
    """sign(v) ceil(|v| / s)."""
    return np.sign(numbers) * -(-np.abs(numbers) // width)


def _ends(place: int, width: int) -> tuple[int, int]:
    """The least and the largest number of a bin."""
    near, far = (abs(place) - 1) * width + 1, abs(place) * width
    return (0, 0) if place == 0 else (near, far) if place > 0 else (-far, -near)


def _words(least: int, largest: int) -> str:
    return str(least) if least == largest else f"{least} to {largest}"


def _bar(share: float) -> str:
    """Of what is there at all something is seen."""
    return "█" * round(BAR * share) or "▏" * (share > 0)


def _widths() -> Iterator[int]:
    """1, 2, 5, 10, 20, 50, ..."""
    for power in count():
        yield from (lead * 10**power for lead in (1, 2, 5))
