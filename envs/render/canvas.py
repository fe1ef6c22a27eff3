"""Where one mode of a world is drawn: axes with a cell as their unit, rows going down; and the inks of all figures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from envs.layout import Layout
from envs.picture import PAPER, layout_of
from envs.world import World

WIND = 0.55  # cells below the map, where the wind is written
INK = "#20242c"
VALUES = LinearSegmentedColormap.from_list("values", ["#fbf8f1", "#d3e4e3", "#8dbfc4", "#3f8a98", "#17566b"])
VISITS = LinearSegmentedColormap.from_list("visits", ["#fbf8f1", "#f6dfc2", "#ecb389", "#d4735e", "#9c3350"])
LIGHT = 0.55  # paper on darker fills, ink on lighter ones
LEGIBLE = 0.26  # inches a cell, from which it has room for a number
FINE = 0.06  # inches a cell, below which a map is an image without lines

Fills = Float[np.ndarray, "rows cols 3"]
"""The colour of each cell, in [0, 1]."""


@dataclass(frozen=True)
class Canvas:
    """Where one mode of a world is drawn."""

    world: World
    layout: Layout
    mode: int
    ax: Axes
    inches: float
    """The side of a cell."""

    @property
    def fine(self) -> bool:
        """Cells are too small to be told apart."""
        return self.inches < FINE

    @cached_property
    def alive(self) -> Bool[np.ndarray, "rows cols"]:
        """Cells with a state in which something is decided."""
        return (self.states >= 0) & self.world.mdp.lived().numpy()[self.states]

    @cached_property
    def states(self) -> Int64[np.ndarray, "rows cols"]:
        """The state of each cell, -1 where there is none."""
        return self.layout.states[self.mode].numpy()

    @staticmethod
    def open(world: World, mode: int, title: str | None, ax: Axes | None) -> Canvas:
        """Prepare the axes, or a new figure of fitting size."""
        layout = layout_of(world)
        if ax is None:
            longest = max(layout.rows, layout.cols)
            side = float(min(np.clip(5 / longest, 0.3, 0.8), 20 / longest))  # inches a cell
            head = 0.35 if title else 0.1
            height = (layout.rows + margin(layout)) * side
            figure = Figure(figsize=(layout.cols * side + 0.2, height + head))
            FigureCanvasAgg(figure)
            ax = figure.add_axes((0, 0, 1, (height + 0.1) / (height + head)))
        ax.set_aspect("equal")
        ax.set_axis_off()
        frame(ax, layout)
        box = ax.get_window_extent()
        inches = float(min(box.width / layout.cols, box.height / (layout.rows + margin(layout))) / ax.figure.dpi)
        if title:
            ax.set_title(title, fontsize=10, color=INK, pad=5)
        return Canvas(world, layout, mode, ax, inches)


def margin(layout: Layout) -> float:
    """Cells of room below the map: for the wind, where there is any."""
    return WIND if any(layout.wind) else 0.0


def frame(ax: Axes, layout: Layout) -> None:
    """Show the whole map, rows going down."""
    ax.set_xlim(-0.06, layout.cols + 0.06)
    ax.set_ylim(layout.rows + margin(layout) + 0.06, -0.06)


def write(ax: Axes, x: float, y: float, words: str, fill: Any, size: float, *, bold: bool = False) -> None:
    """Words in the middle of (x, y), in the ink that can be read on `fill`; `size` in points."""
    weight = "bold" if bold else "normal"
    ax.text(x, y, words, ha="center", va="center_baseline", fontsize=size, color=ink(fill), weight=weight)


def ink(fill: Any) -> str:
    """Dark on light, light on dark."""
    luminance = float(np.dot(fill, (0.299, 0.587, 0.114)))
    return INK if luminance > LIGHT else PAPER
