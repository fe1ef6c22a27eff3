"""Pictures in one style: curves with bands, bars and image grids, drawn without any global state.

matplotlib is used through its objects (`Figure`), so nothing depends on a backend or on what was drawn before.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

INK, GRID = "#22303c", "#d9dee3"
COLOURS = ("#2563a8", "#d9722e", "#3a8f5c", "#8b4fa0", "#b83a4b", "#7a6a4f")
STYLE = {
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.axisbelow": True,
}


def figure(rows: int = 1, columns: int = 1, width: float = 4.4, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """A figure of rows x columns axes, each `width` x `height` inches, and the axes in reading order."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(columns * width, rows * height), layout="constrained", facecolor="white")
        axes = np.atleast_1d(made.subplots(rows, columns)).ravel()
    return made, list(axes)


def mosaic(
    names: Sequence[Sequence[str]], inches: tuple[float, float], widths: Sequence[float]
) -> tuple[Figure, dict[str, Axes]]:
    """A figure of `inches` (width, height) with axes by name; a name that recurs is one that spans its places.

    Args:
        names: the axes of each row.
        inches: width and height of the whole.
        widths: of the columns, as shares.
    """
    with mpl.rc_context(STYLE):
        made = Figure(figsize=inches, layout="constrained", facecolor="white")
        axes: dict[str, Axes] = made.subplot_mosaic([list(row) for row in names], width_ratios=list(widths))
    return made, axes


def curve(
    ax: Axes,
    x: ArrayLike,
    y: ArrayLike,
    label: str | None = None,
    colour: int = 0,
    low: ArrayLike | None = None,
    high: ArrayLike | None = None,
) -> None:
    """A line, and a band from `low` to `high` around it where they are given."""
    ax.plot(np.asarray(x), np.asarray(y), color=COLOURS[colour], linewidth=1.6, label=label)
    if low is not None and high is not None:
        ax.fill_between(
            np.asarray(x), np.asarray(low), np.asarray(high), color=COLOURS[colour], alpha=0.18, linewidth=0
        )


def label(ax: Axes, title: str, x: str = "", y: str = "") -> None:
    """Title at the upper left, and names of the axes."""
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=7)
    ax.set_xlabel(x, color=INK)
    ax.set_ylabel(y, color=INK)


def legend(ax: Axes, where: str = "best") -> None:
    """The names of the curves, without a box; "below" makes room for two of them below all that was drawn."""
    if where == "below":
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.22 * (high - low), high)
    ax.legend(loc="lower right" if where == "below" else where, frameon=False, fontsize=8, labelcolor=INK)


def level(ax: Axes, y: float, label: str) -> None:
    """A dashed horizontal line: an exact value, or a bar to clear."""
    ax.axhline(y, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), label=label)


def bars(
    ax: Axes, names: Sequence[str], values: Sequence[float], colours: Sequence[int] | None = None, form: str = "{:.0%}"
) -> None:
    """Labelled bars with their value written above."""
    drawn = ax.bar(list(names), list(values), color=[COLOURS[c] for c in (colours or range(len(names)))], width=0.62)
    ax.bar_label(drawn, labels=[form.format(v) for v in values], padding=2)
    ax.grid(axis="x", visible=False)


def smooth(values: ArrayLike, window: int) -> np.ndarray:
    """Trailing mean over up to `window` entries along the first axis; shorter at the start, so nothing is invented."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 0:
        return array
    total = np.cumsum(np.insert(array, 0, 0.0, axis=0), axis=0)
    ends = np.arange(1, len(array) + 1)
    starts = np.maximum(ends - window, 0)
    widths = (ends - starts).reshape(-1, *[1] * (array.ndim - 1))
    return (total[ends] - total[starts]) / widths


def png(made: Figure, dpi: int = 130) -> bytes:
    """The figure as PNG bytes."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        made.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save(made: Figure, path: Path, dpi: int = 130) -> Path:
    """Write the figure as PNG and return the path."""
    path.write_bytes(png(made, dpi))
    return path
