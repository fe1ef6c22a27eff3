"""Samples while it trains: the same few pictures, from the same noise, drawn anew as the network learns.

    RUN/progress/000200.png     what the network of update 200 draws
    RUN/progress.png            in the end: how the pictures came about, from above to below

The weights do not depend on it: nothing here draws from a stream of the training, nor leaves anything behind.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from generative.diffusion.data import Split
from generative.diffusion.engine.request import RequestError
from generative.diffusion.parts import Parts
from generative.diffusion.pictures import grid, save_png
from generative.train import TrainConfig
from lab import plots
from lab.run import Run
from qx.diffusion_drawn import Told

PICTURES = 8
STEPS = 10  # of the solver, for each
TIMES = 20  # most grids of a run by default
SHARE = 0.02  # of the training's time that they may take by default
BACKWARD = 2  # what the backward pass costs in units of the forward pass
ROWS = 10  # most of the strip
FOLDER = "progress"


class Grids:
    """When to draw, and what.

    Args:
        every: updates between grids, 0 for none, None for `usual`.
        train: of the denoiser.
        seed: of the samples.
        guidance: of the samples.
    """

    def __init__(self, every: int | None, train: TrainConfig, seed: int, guidance: float) -> None:
        self.every, self.total = usual(train) if every is None else every, train.steps
        self.seed, self.guidance = seed, guidance

    def due(self, step: int) -> bool:
        """Whether the network of this update is one to draw: after every so many, and the last."""
        if not 0 < self.every <= self.total or step < 1:
            return False
        return step % self.every == 0 or step == self.total

    def leave(self, run: Run, step: int, parts: Parts, data: Split) -> None:
        """Draw the grid of this step. A network whose samples are not finite, as at first some may be, draws none."""
        wanted = parts.requests(few(data, parts), seed=self.seed, guidance=self.guidance, steps=STEPS)
        try:
            images = parts.decode(parts.engine(2 * PICTURES).sample(wanted))
        except RequestError:
            return
        zoom = max(1, 64 // images.shape[-1])
        save_png(grid(images, PICTURES, zoom=zoom, gap=4, background=96), run.path / FOLDER / f"{step:06d}.png")


def usual(train: TrainConfig) -> int:
    """Updates between grids: of `TIMES` in all, or of as many as cost no more than `SHARE` of the network's work."""
    a_grid = STEPS * 2 * PICTURES  # samples that the network sees, for a guided one sees each twice
    an_update = (1 + BACKWARD) * train.batch_size
    return max(math.ceil(train.steps / TIMES), math.ceil(a_grid / (SHARE * an_update)))


def few(data: Split, parts: Parts) -> Told:
    """What the grids show: captions, those held out first; classes in turn; or anything."""
    if parts.text is not None:
        return [*(data.test.captions or ()), *(data.train.captions or ())][:PICTURES]
    return [i % data.classes if parts.classes is not None else None for i in range(PICTURES)]


def strip(run: Run) -> None:
    """`progress.png` of all grids that the run has left, or of `ROWS` among them; nothing where there are none."""
    known = sorted((run.path / FOLDER).glob("*.png"), key=lambda file: int(file.stem))
    if not known:
        return
    chosen = np.unique(np.linspace(0, len(known) - 1, ROWS).round().astype(int))
    files = [known[i] for i in chosen]
    rows = [_pixels(file) for file in files]
    page = np.concatenate(rows)
    height, width = page.shape[:2]
    made, (ax,) = plots.figure(1, 1, width=6.0, height=0.6 + 5.4 * height / width)
    ax.imshow(page, cmap="gray", vmin=0, vmax=255)
    each = height / len(rows)
    ax.set_yticks([(i + 0.5) * each for i in range(len(rows))], [f"{int(file.stem):,}" for file in files])
    ax.set_xticks([])
    ax.grid(visible=False)
    plots.label(ax, "samples from the same noise", "", "update")
    plots.save(made, run.path / f"{FOLDER}.png")


def _pixels(file: Path) -> np.ndarray:
    with Image.open(file) as opened:
        return np.asarray(opened)
