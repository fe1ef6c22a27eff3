"""What was logged of a training, as curves over updates: of what is learned from, and beside it of what is held out."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lab import plots
from lab.run import Run

SIDES = {"chosen": 2, "rejected": 4}
"""The colours of a pair's sides, in every picture."""


class Curves:
    """The metrics of a run, drawn one panel at a time.

    Args:
        run: what was logged.
        points: the noise of single updates is averaged over so many parts of the run.
    """

    def __init__(self, run: Run, points: int = 40) -> None:
        self.lines = run.metrics()
        self.held = [line for line in self.lines if "held_out/loss" in line]
        self.step, self.window = [line["step"] for line in self.lines], max(1, len(self.lines) // points)

    def learned(self, ax: Axes, key: str, title: str, first: int = 0) -> None:
        """A metric in training, from that line of the log on, and of what is held out."""
        self._curve(ax, key, "training" if self.held else None, 0, first)
        if self.held:
            told = [line[f"held_out/{key}"] for line in self.held]
            plots.curve(ax, [line["step"] for line in self.held], told, "held out", 1)
            plots.legend(ax)
        plots.label(ax, title, "update")

    def ranked(self, ax: Axes) -> None:
        """How many pairs have the better score on the chosen side; not before anything is learned, when none has."""
        known = len(self.lines) > 1 and self.lines[0]["rewards/accuracies"] == 0
        self.learned(ax, "rewards/accuracies", "share of pairs ranked right", int(known))
        ax.set_ylim(0, 1.05)

    def sides(self, ax: Axes, metric: str, title: str, *, margin: bool = False) -> None:
        """A metric of the chosen and of the rejected side, and where asked for their difference."""
        for side, colour in SIDES.items():
            self._curve(ax, f"{metric}/{side}", side, colour)
        if margin:
            self._curve(ax, f"{metric}/margins", "margin", 0)
        plots.label(ax, title, "update")
        plots.legend(ax)

    def _curve(self, ax: Axes, key: str, name: str | None, colour: int, first: int = 0) -> None:
        values = plots.smooth([line[key] for line in self.lines[first:]], self.window)
        plots.curve(ax, self.step[first:], values, name, colour)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
