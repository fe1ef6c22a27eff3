"""What a run of `qx diffuse --base` leaves behind: the tuned model in every form that holds it, and pictures of it
beside those of its base, from the same noise.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from generative.diffusion.data import Split
from generative.diffusion.parts import Parts
from generative.diffusion.pictures import grid, save_png
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.recipes import Drawing
from generative.diffusion.stock import lora
from generative.diffusion.stock.stock import Stock
from lab import console, plots
from lab.run import Run
from qx.diffusion_drawn import drawn
from qx.diffusion_report import album, loss_curve, stock_folder, wanted

COLUMNS = 6
TILES = 12  # captions in the album
ROWS = 16  # of the network in one call: the models of others may be large


def save(run: Run, tuned: Pipeline | Stock, adapted: nn.Module) -> None:
    """`model/` of ours, `diffusers/` where one of its pipelines fits, `adapters/` where it reads such.

    Args:
        run: where to.
        tuned: the model, adapters folded in.
        adapted: its denoiser with the adapters.
    """
    if isinstance(tuned, Pipeline):
        tuned.save(run.path / "model")
    stock_folder(tuned, run.path / "diffusers")
    try:
        lora.save(run.path / "adapters", adapted)
    except ValueError as reason:
        console.err.print(f"[dim]no file of adapters for diffusers: {console.escape(str(reason))}[/]", soft_wrap=True)


def draw(run: Run, base: Parts, tuned: Parts, data: Split, name: str, drawing: Drawing, seed: int) -> None:
    """`report.png`, `real.png`, and `before.png` and `samples.png`: the base's samples and the tuned model's.

    Args:
        run: where to.
        base: the model as it was.
        tuned: the model as it is.
        data: what it was tuned on.
        name: of the data.
        drawing: solver, steps and guidance of the samples.
        seed: of the samples.
    """
    look = {"zoom": max(1, 48 // data.shape[-1]), "gap": 6, "background": 96}
    told, real = wanted(base, data, COLUMNS)
    before, after = (
        drawn(model, model.requests(told, seed=seed, **drawing._asdict()), label, ROWS)
        for model, label in ((base, "the base's samples"), (tuned, "samples"))
    )
    for shown, file in ((real, "real"), (before, "before"), (after, "samples")):
        save_png(grid(shown, COLUMNS, **look), run.path / f"{file}.png")
    made, axes = plots.figure(2, 2, width=4.6, height=4.6)
    told_alike = "" if told[0] is None else ", a class a row" if base.text is None else ", the same captions"
    pictures = ((before, f"before{told_alike}"), (after, "after, from the same noise"), (real, f"real {name}"))
    for ax, (shown, title) in zip(axes, pictures, strict=False):
        ax.imshow(grid(shown, COLUMNS, **look), cmap="gray", vmin=0, vmax=255)
        plots.label(ax, title)
        ax.set_axis_off()
    loss_curve(axes[3], run, "loss of the adapters")
    plots.save(made, run.path / "report.png")
    if base.text is not None:
        words = [str(each) for each in told[:TILES]]
        plots.save(album(_pairs(before, after, len(words)), _twice(words), COLUMNS), run.path / "captions.png")


def _pairs(before: Tensor, after: Tensor, count: int) -> Tensor:
    """Each picture beside what it became."""
    return torch.stack([before[:count], after[:count]], dim=1).flatten(0, 1)


def _twice(words: list[str]) -> list[str]:
    return [line for word in words for line in (f"before: {word}", "after")]
