"""`qx diffuse` and `qx sample`: train a diffusion model, then draw from it through the batched loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from torch import Tensor

from generative.diffusion.data import Split, digits
from generative.diffusion.metrics import Judge
from generative.diffusion.pictures import grid, save_gif, save_png
from generative.diffusion.pipeline import DiffusionConfig, Pipeline
from generative.diffusion.request import RequestError
from generative.diffusion.solver import SOLVERS
from generative.train import TrainConfig, Trainer
from lab import console, plots, streams
from lab.run import Run, write_json
from qx.jobs import device_of, show, start
from qx.usage import Common, Lasting, UsageError, asked, choose, from_tree, parse, to_tree

DATA = {"digits": digits}
DEFAULTS = TrainConfig(steps=1000, batch_size=128, learning_rate=2e-3, ema=0.995)
NETWORK = DiffusionConfig()
GUIDANCE = 1.5  # of the samples in the report
LOOK = {"zoom": 6, "gap": 6, "background": 96}  # of a grid of images
JUDGED = 500  # samples that the report's judge sees


@dataclass(frozen=True, kw_only=True)
class Diffuse(Lasting):
    """Train a class-conditional diffusion model on images."""

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """What to learn: digits (scikit-learn's 1,797 handwritten ones, embedded)."""
    backbone: Literal["unet"] = "unet"
    """The denoising network."""
    model: DiffusionConfig = NETWORK
    train: TrainConfig = DEFAULTS
    dropout: float = 0.1
    """Share of samples trained without their label, for guidance. Larger guides better and conditions worse."""


@dataclass(frozen=True, kw_only=True)
class Sample(Common):
    """Draw images from a trained model; every image has its own stream, so --n 64 begins with the 8 of --n 8."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run of `qx diffuse`."""
    n: int = 64
    """Images to draw."""
    label: int | None = None
    """Class of all images; by default all classes in turn."""
    solver: str = "dpmpp-2m"
    """ddpm (stochastic), ddim, or dpmpp-2m (second order: good from 10 steps)."""
    steps: int = 20
    """Network calls an image. More are slower and nearer to the exact solution."""
    guidance: float = GUIDANCE
    """1 draws from the data; larger draws more typical images of the class, with less variety; 0 ignores the class."""
    rows: int = 64
    """Network rows in one call; a guided image takes two. More use the machine better."""


class DiffuseJob:
    """One training of a diffusion model, prepared."""

    command = "diffuse"

    def __init__(self, options: Diffuse) -> None:
        self.device = device_of(options)
        self.inputs: tuple[Path, ...] = ()
        self.data: Split = DATA[choose("data set", options.data, DATA)]()
        shape, classes = self.data.shape, self.data.classes
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
        self.name, self.total = options.data, options.train.steps
        self.headline: tuple[str, ...] = ("loss",)

    def pipeline(self) -> Pipeline:
        """What was trained, ready to draw from."""
        return Pipeline(self.config, self.trainer.result.eval())

    def watch(self) -> Mapping[str, Tensor]:
        return {}

    def evaluate(self) -> dict[str, Any]:
        """Share of class-conditional samples recognised as their class by a judge trained on real images alone."""
        judge = Judge(self.data.train, self.data.test)
        labels = [i % self.data.classes for i in range(JUDGED)]
        with console.progress("sampling", JUDGED) as bar:
            done = iter(range(JUDGED))
            images = self.pipeline().sample(
                labels, seed=self.options.seed, guidance=GUIDANCE, steps=20, progress=lambda n: _count(bar, done, n)
            )
        recognised = judge.recognised(images, torch.tensor(labels)).float().mean().item()
        return {"recognised": recognised, "samples": JUDGED, "judge_accuracy": judge.accuracy, "guidance": GUIDANCE}

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """`model/`, `report.png` (samples beside real images, loss), `samples.png`, `real.png`, `denoising.gif`."""
        pipeline = self.pipeline()
        pipeline.save(run.path / "model")
        classes = self.data.classes
        labels = [label for label in range(classes) for _ in range(10)]
        images = pipeline.sample(labels, seed=self.options.seed, guidance=GUIDANCE, steps=20)
        real = _by_class(self.data, 10)
        save_png(grid(images, 10, **LOOK), run.path / "samples.png")
        save_png(grid(real, 10, **LOOK), run.path / "real.png")
        _film(pipeline, run, classes, self.options.seed)
        made, axes = plots.figure(1, 3, width=4.6, height=4.6)
        for ax, shown, title in ((axes[0], real, "real digits"), (axes[1], images, "samples, a class a row")):
            ax.imshow(grid(shown, 10, **LOOK), cmap="gray", vmin=0, vmax=255)
            plots.label(ax, title)
            ax.set_axis_off()
        lines = run.metrics()
        window = max(1, len(lines) // 30)
        step = [line["step"] for line in lines]
        plots.curve(axes[2], step, plots.smooth([line["loss"] for line in lines], window))
        plots.label(axes[2], "loss (squared error of v)", "update")
        plots.save(made, run.path / "report.png")

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
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


def sample(args: Sequence[str]) -> dict[str, Any]:
    """`qx sample RUN`."""
    options = parse(Sample, args, "qx sample")
    device = device_of(options)
    choose("solver", options.solver, SOLVERS)
    folder = options.run / "model" if (options.run / "model").is_dir() else options.run
    pipeline = Pipeline.load(folder)
    pipeline.network.to(device).eval()
    classes = pipeline.config.classes
    labels: list[int | None] = [
        options.label if classes is None or options.label is not None else i % classes for i in range(options.n)
    ]
    requests = pipeline.requests(
        labels, seed=options.seed, solver=options.solver, steps=options.steps, guidance=options.guidance
    )
    engine = pipeline.engine(options.rows)
    with console.progress("sampling", options.n) as bar:
        done = iter(range(options.n))
        try:
            images = engine.sample(requests, lambda n: _count(bar, done, n))
        except RequestError as error:  # all requests are alike, so its number says nothing
            raise UsageError(str(error).partition(": ")[2] or str(error)) from None
    out = options.out or options.run / "samples"
    out.mkdir(parents=True, exist_ok=True)
    columns = classes if classes is not None and options.label is None else max(1, int(options.n**0.5))
    save_png(grid(images, columns, **LOOK), out / "samples.png")
    np.savez(
        out / "samples.npz", images=images.cpu().numpy(), labels=np.array([-1 if i is None else i for i in labels])
    )
    result = {"samples": options.n, "solver": options.solver, "steps": options.steps, "guidance": options.guidance}
    result |= {"picture": str(out / "samples.png"), "images": str(out / "samples.npz")}
    write_json(out / "result.json", result)
    console.out.print(f"{options.n} images in {out / 'samples.png'} and {out / 'samples.npz'}", soft_wrap=True)
    return result


def _count(bar: console.Bar, done: Any, n: int) -> None:
    """Move the bar on by n."""
    for _ in range(n):
        bar.update(next(done) + 1)


def _by_class(data: Split, each: int) -> Tensor:
    """The first `each` real images of every class."""
    image, label = data.train.tensors["image"], data.train.tensors["label"]
    return torch.cat([image[label == c][:each] for c in range(data.classes)])


def _film(pipeline: Pipeline, run: Run, classes: int, seed: int) -> None:
    """`denoising.gif`: noise becoming one image of each class twice, all in one batch."""
    labels = [c for _ in range(2) for c in range(classes)]
    requests = pipeline.requests(labels, seed=seed, solver="ddim", steps=50, guidance=GUIDANCE)
    frames = [grid(images, classes, **LOOK) for images in pipeline.frames(requests)]
    save_gif(frames, run.path / "denoising.gif")
