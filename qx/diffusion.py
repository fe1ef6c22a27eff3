"""`qx diffuse`: train a diffusion model on images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from accelerate import Accelerator
from torch import Tensor

from generative.diffusion.data import EMBEDDED, Split, load
from generative.diffusion.measures.metrics import Judge
from generative.diffusion.pictures import grid, save_gif, save_png
from generative.diffusion.pipeline import DiffusionConfig, Pipeline
from generative.train import TrainConfig, Trainer
from lab import console, plots, streams
from lab.run import Run
from qx.jobs import device_of, show, start
from qx.usage import Common, Lasting, UsageError, asked, choose, from_tree, parse, to_tree

DEFAULTS = TrainConfig(steps=1000, batch_size=128, learning_rate=2e-3, ema=0.05)
NETWORK = DiffusionConfig()
GUIDANCE = 1.5  # of the samples in the report
LOOK = {"zoom": 6, "gap": 6, "background": 96}  # of a grid of images
JUDGED = 500  # samples that the report's judge sees


@dataclass(frozen=True, kw_only=True)
class Diffuse(Lasting):
    """Train a diffusion model on images, by class where they have classes."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """What to learn: digits (scikit-learn's 1,797 handwritten ones, embedded), an .npz file, or a folder of images."""
    size: int = 32
    """Side of the square that every image of a folder becomes. Larger shows more and costs its square in time."""
    backbone: Literal["unet"] = "unet"
    """The denoising network."""
    model: DiffusionConfig = NETWORK
    train: TrainConfig = DEFAULTS
    dropout: float = 0.1
    """Share of samples trained without their label, for guidance. Larger guides better and conditions worse."""


class DiffuseJob:
    """One training of a diffusion model, prepared."""

    command = "diffuse"

    def __init__(self, options: Diffuse) -> None:
        self.device = device_of(options)
        self.data = _load(options)
        self.inputs: tuple[Path, ...] = (Path(options.data),) if Path(options.data).is_file() else ()
        shape, classes = self.data.shape, self.data.classes or None
        if (options.model.shape, options.model.classes) not in ((NETWORK.shape, NETWORK.classes), (shape, classes)):
            raise UsageError(f"--shape, --classes: follow from the data, {shape} and {classes} for {options.data}")
        self.config = dataclasses.replace(options.model, shape=shape, classes=classes)
        self.options = dataclasses.replace(options, model=self.config)
        with asked("the network"):
            pipeline = Pipeline.build(self.config, streams.generator(options.seed, "weights"))
        objective = pipeline.objective(options.dropout)
        accelerator = Accelerator(cpu=self.device.type == "cpu")
        network, data = pipeline.network, self.data.train
        self.trainer = Trainer(network, objective, data, options.train, seed=options.seed, accelerator=accelerator)
        self.name, self.total = Path(options.data).stem, options.train.steps
        self.headline: tuple[str, ...] = ("loss",)

    def pipeline(self) -> Pipeline:
        """What was trained, ready to draw from."""
        return Pipeline(self.config, self.trainer.result.eval())

    def watch(self) -> Mapping[str, Tensor]:
        return {}

    def evaluate(self) -> dict[str, Any]:
        """Share of class-conditional samples recognised as their class by a judge trained on real images alone.

        Nothing where there are no classes, or no images held out to say how far the judge is to be trusted.
        """
        if not self.data.classes or not len(self.data.test):
            return {}
        judge = Judge(self.data.train, self.data.test)
        labels = [i % self.data.classes for i in range(JUDGED)]
        with console.progress("sampling", JUDGED) as bar:
            done = iter(range(JUDGED))
            images = self.pipeline().sample(
                labels, seed=self.options.seed, guidance=GUIDANCE, steps=20, progress=lambda n: _count(bar, done, n)
            )
        recognised = judge.recognised(images, torch.tensor(labels)).float().mean().item()
        found = {"recognised": recognised, "samples": JUDGED, "judge_accuracy": judge.accuracy, "guidance": GUIDANCE}
        among = min(JUDGED, len(self.data.test))
        if among > 1:
            found["frechet"] = judge.quality(self.data.test.image[:among], images[:among]).frechet
        return found

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """`model/`, `report.png` (samples beside real images, loss), `samples.png`, `real.png`, `denoising.gif`."""
        pipeline = self.pipeline()
        pipeline.save(run.path / "model")
        labels = _rows(self.data, 10)
        images = pipeline.sample(labels, seed=self.options.seed, guidance=GUIDANCE, steps=20)
        real = _like(self.data, labels)
        look = {**LOOK, "zoom": max(1, 48 // images.shape[-1])}
        save_png(grid(images, 10, **look), run.path / "samples.png")
        save_png(grid(real, 10, **look), run.path / "real.png")
        frames = [grid(shown, 10, **look) for shown in _film(pipeline, labels[::5], self.options.seed)]
        save_gif(frames, run.path / "denoising.gif")
        made, axes = plots.figure(1, 3, width=4.6, height=4.6)
        words = "samples, a class a row" if self.data.classes else "samples"
        for ax, shown, title in ((axes[0], real, f"real {self.name}"), (axes[1], images, words)):
            ax.imshow(grid(shown, 10, **look), cmap="gray", vmin=0, vmax=255)
            plots.label(ax, title)
            ax.set_axis_off()
        lines = run.metrics()
        window = max(1, len(lines) // 30)
        step = [line["step"] for line in lines]
        plots.curve(axes[2], step, plots.smooth([line["loss"] for line in lines], window))
        plots.label(axes[2], f"loss (squared error of {self.config.prediction})", "update")
        plots.save(made, run.path / "report.png")

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        if "recognised" not in result:
            return [("pictures", str(Path(result["run"]) / "report.png")), ("run", str(result["run"]))]
        words = f"{result['recognised']:.1%} of {result['samples']} samples, guidance {result['guidance']:g}"
        judge = f"a judge that is right about {result['judge_accuracy']:.1%} of held-out real images"
        return [("recognised", f"{words}, by {judge}"), ("run", str(result["run"]))]


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


def _count(bar: console.Bar, done: Any, n: int) -> None:
    """Move the bar on by n."""
    for _ in range(n):
        bar.update(next(done) + 1)


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
    if found.train.captions is not None and not found.classes:
        console.err.print("[dim]captions are not learned here: the model draws without being told[/]", soft_wrap=True)
    return found


def _rows(data: Split, each: int) -> list[int | None]:
    """What the report draws: `each` of every class, of ten classes at most; a hundred where there are none."""
    return [c for c in range(min(10, data.classes)) for _ in range(each)] or [None] * (10 * each)


def _like(data: Split, labels: Sequence[int | None]) -> Tensor:
    """A real image for each label, as long as there are any; in order, none twice."""
    image, label = data.train.image, data.train.label
    left = {c: iter(image if c is None or label is None else image[label == c]) for c in set(labels)}
    blank = torch.ones_like(image[0])
    return torch.stack([next(left[c], blank) for c in labels])


def _film(pipeline: Pipeline, labels: Sequence[int | None], seed: int) -> Iterator[Tensor]:
    """Noise becoming an image for each label, all in one batch."""
    yield from pipeline.frames(pipeline.requests(labels, seed=seed, solver="ddim", steps=50, guidance=GUIDANCE))
