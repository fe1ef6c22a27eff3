"""What a run of `qx diffuse` leaves behind: the model, in our form and in diffusers', and pictures of its samples."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from generative.diffusion.data import Split
from generative.diffusion.parts import Parts
from generative.diffusion.pictures import grid, save_gif, save_png
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.recipes import Drawing
from generative.diffusion.solvers.solver import SolverError
from generative.diffusion.stock.export import save_folder, stock_of
from generative.diffusion.stock.stock import Stock
from generative.diffusion.training.weight import Weight
from lab import console, plots
from lab.run import Run
from qx.diffusion_drawn import Told, drawn

COLUMNS = 10
FRAMES, FILMED = 20, 50  # samples in the film, and its steps
BACKGROUND = 96  # grey, of 255
TILES = (4, 5)  # rows and columns of samples with their captions


def write(run: Run, pipeline: Pipeline, data: Split, name: str, weight: Weight, drawing: Drawing, seed: int) -> None:
    """`model/`, `diffusers/` where one of its pipelines fits, `report.png`, `samples.png`, `real.png`, `denoising.gif`.

    Args:
        run: where to.
        pipeline: what was trained.
        data: what it was trained on.
        name: of the data.
        weight: of the noise levels in the loss.
        drawing: solver, steps and guidance of the samples.
        seed: of the samples.
    """
    pipeline.save(run.path / "model")
    stock_folder(pipeline, run.path / "diffusers")
    look: dict[str, Any] = {"zoom": max(1, 48 // data.shape[-1]), "gap": 6, "background": BACKGROUND}
    told, real = wanted(pipeline, data, COLUMNS)
    images = drawn(pipeline, pipeline.requests(told, seed=seed, **drawing._asdict()), "samples for the report")
    film = list(_film(pipeline, told[:: -(-len(told) // FRAMES)], drawing.guidance, seed))
    save_gif([grid(shown, COLUMNS, **look) for shown in film], run.path / "denoising.gif")
    save_png(grid(real, COLUMNS, **look), run.path / "real.png")
    if pipeline.text is None:
        save_png(grid(images, COLUMNS, **look), run.path / "samples.png")
    else:
        rows, columns = TILES
        words = [str(each) for each in told[: rows * columns]]
        plots.save(album(images[: len(words)], words, columns), run.path / "samples.png")
    made, axes = plots.figure(1, 3, width=4.6, height=4.6)
    words_of = "samples, for the same captions" if pipeline.text else "samples, a class a row" if data.classes else ""
    for ax, shown, title in ((axes[0], real, f"real {name}"), (axes[1], images, words_of or "samples")):
        ax.imshow(grid(shown, COLUMNS, **look), cmap="gray", vmin=0, vmax=255)
        plots.label(ax, title)
        ax.set_axis_off()
    weighted = "" if weight == "uniform" else f", weighted by {weight}"
    loss_curve(axes[2], run, f"loss (squared error of {pipeline.config.says}{weighted})")
    plots.save(made, run.path / "report.png")


def loss_curve(ax: Axes, run: Run, title: str) -> None:
    """The loss over updates, as a mean of neighbours."""
    lines = [line for line in run.metrics() if "loss" in line]
    step, loss = [line["step"] for line in lines], [line["loss"] for line in lines]
    plots.curve(ax, step, plots.smooth(loss, max(1, len(lines) // 30)))
    plots.label(ax, title, "update")


def album(images: Tensor, words: Sequence[str], columns: int) -> Figure:
    """Pictures with words beneath, row by row."""
    made, axes = plots.figure(-(-len(images) // columns), columns, width=1.5, height=1.9)
    for ax in axes:
        ax.set_axis_off()
    for ax, image, line in zip(axes, images, words, strict=False):
        shown = ((image.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).squeeze(2).cpu().numpy()
        ax.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        lines = textwrap.wrap(line, 20)[:3]
        ax.text(0.5, -0.04, "\n".join(lines), transform=ax.transAxes, ha="center", va="top", fontsize=7)
    return made


def stock_folder(parts: Pipeline | Stock, folder: Path) -> None:
    """The model as diffusers reads it, whole or not at all, in place of an earlier one.

    Where no stock pipeline holds such a model it is said why.
    """
    new = folder.with_name(folder.name + ".tmp")
    for old in (new, folder):
        shutil.rmtree(old, ignore_errors=True)
    try:
        save_folder(new, stock_of(parts) if isinstance(parts, Pipeline) else parts)
    except (SolverError, ValueError) as reason:
        shutil.rmtree(new, ignore_errors=True)
        console.err.print(
            f"[dim]not exported for diffusers ({console.escape(str(reason))}); `qx sample` draws from it still[/]",
            soft_wrap=True,
        )
    else:
        new.rename(folder)


def wanted(parts: Parts, data: Split, columns: int) -> tuple[Told, Tensor]:
    """What the report draws, and a real image for each: as many rows as columns.

    A row for every class, of so many classes at most; or captions, those held out first; or anything.
    """
    count = columns * columns
    if parts.text is not None:
        captions = [*(data.test.captions or ()), *(data.train.captions or ())]
        return captions[:count], torch.cat([data.test.image[:count], data.train.image[:count]])[:count]
    classes = data.classes if parts.classes is not None else 0
    labels: list[int | None] = [c for c in range(min(columns, classes)) for _ in range(columns)]
    labels = labels or [None] * count
    image, label = data.train.image, data.train.label
    left = {c: iter(image if c is None or label is None else image[label == c]) for c in set(labels)}
    blank = torch.full_like(image[0], BACKGROUND / 127.5 - 1)  # where a class has fewer
    return labels, torch.stack([next(left[c], blank) for c in labels])


def _film(pipeline: Pipeline, told: Told, guidance: float, seed: int) -> Iterator[Tensor]:
    """Noise becoming an image for each, all in one batch."""
    asked = pipeline.requests(told, seed=seed, solver="ddim", steps=FILMED, guidance=guidance)
    with console.progress("a film of the denoising", FILMED + 1, counts=False) as bar:
        for number, frame in enumerate(pipeline.frames(asked), 1):
            bar.update(number)
            yield frame
