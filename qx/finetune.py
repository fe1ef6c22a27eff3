"""`qx diffuse DATA --base RUN_OR_FOLDER`: a trained model learns other images by low-rank adapters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator
from torch import Tensor

from generative.diffusion.pipeline import Pipeline
from generative.diffusion.recipes import BY_CLASS, BY_PROMPT
from generative.diffusion.stock.stock import Stock
from generative.diffusion.training.finetune import FineTuning
from lab.run import Run
from qx import diffusion_progress as progress
from qx import finetune_report
from qx.diffusion import SIZE, Diffuse, read
from qx.diffusion_drawn import in_words, judged
from qx.diffusion_open import model_folder, opened
from qx.jobs import device_of
from qx.usage import UsageError, asked

SMALL = 64  # pixels of a side; larger samples are too dear to draw hundreds of them for a judge


class TuneJob:
    """One fine-tuning of a diffusion model, prepared."""

    command = "diffuse"
    headline = ("loss",)

    def __init__(self, options: Diffuse) -> None:
        assert options.base is not None
        self.options = dataclasses.replace(options, base=options.base.resolve())
        self.device, folder = device_of(options), model_folder(options.base)
        self.inputs = (folder, *([Path(options.data)] if Path(options.data).is_file() else []))
        self.base = opened(folder)
        channels, side, _ = self.base.image
        if options.size not in (SIZE, side):
            raise UsageError(f"--size {options.size}: the model in --base {options.base} draws {side} pixels a side")
        self.data = read(options, side, 1 if channels == 1 else 3)
        with asked(f"--base {options.base}"):
            self.trainer = FineTuning(
                self.base,
                options.lora,
                self.data.train,
                options.train,
                dropout=options.parts.dropout,
                weight=options.parts.weight,
                seed=options.seed,
                accelerator=Accelerator(cpu=self.device.type == "cpu"),
            )
        self.name, self.total = f"{Path(options.data).stem}-tuned", self.trainer.total
        self.prompts = self.base.text is not None
        self.drawing = BY_PROMPT if self.prompts else BY_CLASS
        self.grids = progress.Grids(options.samples_every, options.train, options.seed, self.drawing.guidance)

    def watch(self) -> Mapping[str, Tensor]:
        return {}

    def look(self, run: Run, step: int) -> None:
        """A grid of what the tuned model draws, where one is due."""
        if self.grids.due(step):
            self.grids.leave(run, step, self.trainer.result(), self.data)

    def evaluate(self) -> dict[str, Any]:
        """How many samples are what they were asked to be, and how many of the base's were (`diffusion_drawn.judged`).

        Of small images, and where it can be said.
        """
        if max(self.base.image) > SMALL:
            return {}
        models = [self.trainer.result(), self.base]
        found, before = judged(models, self.data, seed=self.options.seed, drawing=self.drawing)
        return {**found, "before": before} if found else {}

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """What `qx.finetune_report` writes."""
        tuned = cast("Pipeline | Stock", self.trainer.result())  # as the base is
        finetune_report.save(run, tuned, self.trainer.adapted)
        name = Path(self.options.data).stem
        finetune_report.draw(run, self.base, tuned, self.data, name, self.drawing, self.options.seed)
        progress.strip(run)

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        before = [("before", said) for _, said in in_words(result.get("before", {}))]
        pictures = str(Path(result["run"]) / "report.png")
        return [*before, *in_words(result), ("pictures", pictures), ("run", str(result["run"]))]
