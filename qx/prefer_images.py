"""`qx dpo thick-digits --model RUN`: a run of `qx diffuse digits` learns to draw thicker ones (Diffusion-DPO)."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor

from generative.diffusion.data import Images, digits
from generative.diffusion.measures.metrics import Judge
from generative.diffusion.pictures import grid, save_png
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.recipes import DIGITS
from generative.preference import thick
from generative.preference.denoising import denoising_of, trainer
from generative.shares import cast, effective
from generative.train import TensorData
from lab import console, plots, streams
from lab.run import Run
from qx import diffusion_progress as progress
from qx.curves import Curves
from qx.diffusion_open import model_folder, opened
from qx.diffusion_report import stock_folder
from qx.jobs import device_of
from qx.usage import UsageError, asked

if TYPE_CHECKING:
    from qx.dpo import Dpo

NAME = "thick-digits"
OF_WORDS = ("limit", "strict", "lora_rank", "lora_alpha", "checkpointing")  # options of language models
COLUMNS, SHOWN = 10, 100
LOOK = {"zoom": 6, "gap": 6, "background": 96}


class ThickJob:
    """One preference training of a model of digits, prepared."""

    command, name = "dpo", NAME
    headline = ("loss", "rewards/accuracies", "rewards/margins")

    def __init__(self, options: Dpo, base: Pipeline, folder: Path) -> None:
        self.options, self.device, self.inputs = options, device_of(options), (folder,)
        self.base, self.total = base.to(self.device), options.train.steps
        accelerator = Accelerator(cpu=self.device.type == "cpu")
        self.precision = effective(options.train.precision, accelerator)
        self.data = digits(options.seed)
        with _counting("drawings to compare", thick.POOL) as drawn:
            pool = thick.pool(self.base, options.seed, progress=drawn)
        self.held, self.learned = divided(pool, options.held_out, options.seed)
        self.trainer = trainer(
            self.base,
            self.learned,
            options.preference,
            options.train,
            seed=options.seed,
            accelerator=accelerator,
        )
        self.grids = progress.Grids(options.samples_every, options.train, options.seed, DIGITS.drawing.guidance)
        self.drawn: tuple[thick.Drawn, thick.Drawn] | None = None  # before and after

    @property
    def policy(self) -> Pipeline:
        """The model as it has learned so far."""
        return self.base.using(self.trainer.result.eval())

    def look(self, run: Run, step: int) -> None:
        """A grid of what the policy draws, where one is due."""
        if self.grids.due(step):
            self.grids.leave(run, step, self.policy, self.data)

    def watch(self) -> Mapping[str, Tensor]:
        """The losses and rewards of the pairs that are held out."""
        return {f"held_out/{name}": value for name, value in self._judged().items()}

    def _judged(self) -> dict[str, Tensor]:
        """Means over the pairs that are held out, at levels and with noise that do not change."""
        if self.held is None:
            return {}
        batch = {name: tensor.to(self.device) for name, tensor in self.held.tensors.items()}
        root = torch.tensor(streams.derive(self.options.seed, "held out"))
        key = streams.bits(root, torch.arange(len(self.held))).to(self.device)
        with torch.no_grad(), cast(self.precision, self.device.type):
            told = self.trainer.objective.loss(self.trainer.result.eval(), batch, key)
        return {name: value.double().mean().cpu() for name, value in {"loss": told.value, **told.metrics}.items()}

    def evaluate(self) -> dict[str, Any]:
        """Ink, stroke and legibility of what is drawn before and after, from the same noise; the pairs held out."""
        judge = Judge(self.data.train, self.data.test)
        before, after = self._drawn(judge, self.base, "before"), self._drawn(judge, self.policy, "after")
        self.drawn = before, after
        more, error = thick.gain(before, after)
        found: dict[str, Any] = {name: value.item() for name, value in self._judged().items()}
        return {
            **found,
            **after.numbers(),
            "before": before.numbers(),
            "ink_gained": more,
            "ink_error": error,
            "judge_accuracy": judge.accuracy,
            "samples": thick.JUDGED,
            **DIGITS.drawing._asdict(),
            "learned": len(self.learned),
            "held_out": 0 if self.held is None else len(self.held),
        }

    def _drawn(self, judge: Judge, pipeline: Pipeline, when: str) -> thick.Drawn:
        with _counting(f"samples {when}", thick.JUDGED) as drawn:
            return thick.draw(
                pipeline, judge, seed=self.options.seed, drawing=DIGITS.drawing, count=thick.JUDGED, progress=drawn
            )

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """`model/` as `qx sample` reads it, `diffusers/`, `report.png`, and `before.png` and `samples.png`."""
        assert self.drawn is not None  # `evaluate` comes first
        self.policy.save(run.path / "model")
        stock_folder(self.policy, run.path / "diffusers")
        pictures = [grid(drawn.image[:SHOWN], COLUMNS, **LOOK) for drawn in self.drawn]
        for picture, file in zip(pictures, ("before", "samples"), strict=True):
            save_png(picture, run.path / f"{file}.png")
        progress.strip(run)
        made, axes = plots.figure(2, 3, width=4.6, height=3.9)
        titles = ("before, a class a column", "after, from the same noise")
        for ax, picture, title in zip(axes, pictures, titles, strict=False):
            ax.imshow(picture, cmap="gray", vmin=0, vmax=255)
            plots.label(ax, title)
            ax.set_axis_off()
        for found, name, colour in ((result["before"], "before", 4), (result, "after", 0)):
            plots.curve(axes[2], list(range(len(found["ink_by_class"]))), found["ink_by_class"], name, colour)
        plots.label(axes[2], "ink, 0 to 1", "digit")
        plots.legend(axes[2])
        curves = Curves(run, points=20)
        curves.sides(axes[3], "rewards", "implicit reward (surrogate)", margin=True)
        curves.ranked(axes[4])
        curves.learned(axes[5], "loss", "loss")
        plots.save(made, run.path / "report.png")

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        before, path = result["before"], Path(result["run"])
        how = f"{result['solver']} in {result['steps']} steps, guidance {result['guidance']:g}"
        judge = f"a judge that is right about {result['judge_accuracy']:.1%} of held-out real digits"
        gained = f"{result['ink_gained']:+.3f}, standard error {result['ink_error']:.2g}"
        return [
            ("ink", f"{before['ink']:.3f} before, {result['ink']:.3f} after ({gained}; {result['samples']}, {how})"),
            ("stroke", f"{before['stroke']:.1%} of the pixels before, {result['stroke']:.1%} after"),
            ("recognised", f"{before['recognised']:.1%} before, {result['recognised']:.1%} after, by {judge}"),
            ("pictures", str(path / "report.png")),
            ("model", str(path / "model")),
        ]


@contextlib.contextmanager
def _counting(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar that hears how many more are done."""
    with console.progress(label, total) as bar:
        done = 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            bar.update(done)

        yield more


def divided(pool: Images, share: float, seed: int) -> tuple[TensorData | None, TensorData]:
    """(pairs held out, pairs to learn from), of different drawings; None where nothing is to be held out."""
    place = torch.arange(len(pool))
    rest = len(pool) - int(share * len(pool))
    held = thick.paired(pool.take(place[rest:]), seed, int(share * thick.PAIRS)) if rest < len(pool) else None
    return held if held is not None and len(held) else None, thick.paired(pool.take(place[:rest]), seed, thick.PAIRS)


def prepare(options: Dpo) -> ThickJob:
    """The job, before anything is written.

    Raises UsageError for options of language models, and for a model that is not one of digits by class.
    """
    usual = {field.name: field.default for field in dataclasses.fields(options)}
    for name in OF_WORDS:
        if getattr(options, name) != usual[name]:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag}: of language models; {NAME} is learned by a model that draws")
    folder = model_folder(options.model)
    base = opened(folder)
    if not isinstance(base, Pipeline) or (base.image, base.classes) != ((1, 8, 8), 10) or base.latents is not None:
        raise UsageError(f"--model {options.model}: expected a run of `qx diffuse digits`, without --latent")
    with asked(f"--model {options.model}"):
        denoising_of(base)
    return ThickJob(options, base, folder)
