"""`qx diffuse`: train a diffusion model on images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from accelerate import Accelerator
from torch import Tensor

from generative.diffusion.data import EMBEDDED, Split, load
from generative.diffusion.measures.metrics import Judge
from generative.diffusion.model import DiffusionConfig
from generative.diffusion.training.course import Course, PartsConfig
from generative.train import TrainConfig
from lab import console
from lab.run import Run
from qx.diffusion_report import write
from qx.jobs import device_of, show, start
from qx.usage import Common, Lasting, asked, choose, from_tree, parse, to_tree

DEFAULTS = TrainConfig(steps=1000, batch_size=128, learning_rate=2e-3, ema=0.05)
NETWORK, PARTS = DiffusionConfig(), PartsConfig()
GUIDANCE = {"label": 1.5, "prompt": 3.0}  # of the samples in the report
JUDGED = 500  # samples that the report's judge sees


@dataclass(frozen=True, kw_only=True)
class Diffuse(Lasting):
    """Train a diffusion model on images, told their class or caption where they have such."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """What to learn: digits (scikit-learn's 1,797 handwritten ones) or scenes (captioned, on a grid), both embedded; an
    .npz file; or a folder of images."""
    size: int = 32
    """Side of the square that every image of a folder becomes. Larger shows more and costs its square in time."""
    model: DiffusionConfig = NETWORK
    parts: PartsConfig = PARTS
    train: TrainConfig = DEFAULTS


class DiffuseJob:
    """One training of a diffusion model, prepared."""

    command = "diffuse"
    headline = ("autoencoder_loss", "loss")

    def __init__(self, options: Diffuse) -> None:
        self.device = device_of(options)
        self.data = _load(options)
        self.inputs: tuple[Path, ...] = (Path(options.data),) if Path(options.data).is_file() else ()
        captions = self.data.train.captions
        prompts = options.parts.prompts or (captions is not None and not self.data.classes)
        self.options = dataclasses.replace(options, parts=dataclasses.replace(options.parts, prompts=prompts))
        classes = None if prompts else self.data.classes or None
        accelerator = Accelerator(cpu=self.device.type == "cpu")
        with asked("the model"):
            self.trainer = Course(
                options.model,
                self.options.parts,
                self.data.train,
                classes,
                options.train,
                seed=options.seed,
                accelerator=accelerator,
            )
        self.name, self.total = Path(options.data).stem, self.trainer.total
        self.guidance = GUIDANCE["prompt" if prompts else "label"]

    def watch(self) -> Mapping[str, Tensor]:
        return {}

    def evaluate(self) -> dict[str, Any]:
        """How many samples are what they were asked to be, where that can be said.

        Of classes a judge says it, who was trained on real images alone; of captions the data's own check, for those of
        the training and for those held out. Nothing where there is neither.
        """
        if self.options.parts.prompts:
            return self._obeyed()
        if not self.data.classes or not len(self.data.test):
            return {}
        judge = Judge(self.data.train, self.data.test)
        labels = [i % self.data.classes for i in range(JUDGED)]
        images = self._drawn(labels)
        recognised = judge.recognised(images, torch.tensor(labels)).float().mean().item()
        found = {"recognised": recognised, "judge_accuracy": judge.accuracy}
        among = min(JUDGED, len(self.data.test))
        if among > 1:
            found["frechet"] = judge.quality(self.data.test.image[:among], images[:among]).frechet
        return {**found, "samples": JUDGED, "guidance": self.guidance}

    def _obeyed(self) -> dict[str, Any]:
        check, found = self.data.check, {}
        if check is None:
            return {}
        for part, captions in (("obeyed", self.data.train.captions), ("obeyed_unseen", self.data.test.captions)):
            wanted = list(captions or ())[:JUDGED]
            if wanted:
                found[part] = check(self._drawn(wanted), wanted).float().mean().item()
        return {**found, "samples": JUDGED, "guidance": self.guidance} if found else {}

    def _drawn(self, told: Sequence[int | str]) -> Tensor:
        done = 0
        with console.progress("sampling", len(told)) as bar:

            def count(more: int) -> None:
                nonlocal done
                done += more
                bar.update(done)

            pipeline = self.trainer.result()
            seed = self.options.seed
            return pipeline.sample(told, seed=seed, guidance=self.guidance, steps=20, progress=count)

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """What `qx.diffusion_report` writes."""
        weight = self.options.parts.weight
        write(run, self.trainer.result(), self.data, self.name, weight, self.guidance, self.options.seed)

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        words = [("pictures", str(Path(result["run"]) / "report.png")), ("run", str(result["run"]))]
        among = f"{result.get('samples')} samples, guidance {result.get('guidance', 1):g}"
        if "recognised" in result:
            judge = f"a judge that is right about {result['judge_accuracy']:.1%} of held-out real images"
            return [("recognised", f"{result['recognised']:.1%} of {among}, by {judge}"), *words]
        if "obeyed" in result:
            unseen = (
                f"{result['obeyed_unseen']:.1%} of captions never trained on; " if "obeyed_unseen" in result else ""
            )
            return [("obeyed", f"{result['obeyed']:.1%} of captions of the training, {unseen}{among}"), *words]
        return words


def diffuse(args: Sequence[str]) -> dict[str, Any]:
    """`qx diffuse DATA`."""
    options = parse(Diffuse, args, "qx diffuse")
    job = DiffuseJob(options)
    _, result = start(job, to_tree(job.options), options)
    show(job, result)
    return result


def reopen(run: Run, common: Common) -> DiffuseJob:
    """The job of a run of `qx diffuse`."""
    return DiffuseJob(dataclasses.replace(from_tree(Diffuse, run.config), device=common.device))


def _load(options: Diffuse) -> Split:
    """The images; what was found while reading them is said. Raises UsageError for a name near an embedded one."""
    if options.data not in EMBEDDED and not Path(options.data).exists():
        choose("data set", options.data, EMBEDDED)
    with contextlib.ExitStack() as reading:
        reading.enter_context(asked("--data"))
        said: dict[str, Any] = {}
        if Path(options.data).is_dir():  # the others are read at once
            bar = reading.enter_context(console.progress("reading images", 1, counts=False))
            said["progress"] = lambda files: bar.update(0, f"{files:,} files")
        found = load(options.data, size=options.size, seed=options.seed, **said)
    for line in found.report.lines() if found.report.kept else []:
        console.err.print(f"[dim]{console.escape(line)}[/]", soft_wrap=True)
    return found
