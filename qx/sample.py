"""`qx sample`: draw from a run of `qx diffuse`, or from a folder that diffusers wrote, through the batched loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from backbones.winograd import swift
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.parts import Parts
from generative.diffusion.pictures import grid, save_png
from generative.diffusion.pipeline import Pipeline
from lab import console, streams
from lab.run import write_json
from qx.jobs import device_of
from qx.usage import Common, UsageError, asked, parse

INDEX = "model_index.json"  # of a folder that diffusers wrote
SHOWN = 640  # pixels of the picture's side, at least


@dataclass(frozen=True, kw_only=True)
class Sample(Common):
    """Draw images from a trained model; every image has its own stream, so --n 64 begins with the 8 of --n 8."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN_OR_FOLDER")]
    """The run of `qx diffuse`, or a folder of diffusers (DDPM, DDIM, LDM, DiT or Stable Diffusion)."""
    n: int = 64
    """Images to draw."""
    prompt: tuple[str, ...] = ()
    """What to draw, for a model that reads prompts; several are drawn in turn."""
    against: str | None = None
    """With --prompt, what to lead away from, in place of nothing in particular (diffusers: negative prompt)."""
    label: int | None = None
    """Class of all images; by default all classes in turn."""
    solver: str = "dpmpp-2m"
    """ddim, ddpm, euler, heun, dpmpp-2m, unipc, ...: any linear solver of diffusers; an unknown one lists them all."""
    steps: int = 20
    """Steps of the solver. More are slower and nearer to the exact solution."""
    guidance: float = 1.5
    """1 draws from the data; larger draws more typical images of class or prompt, with less variety; 0 ignores them."""
    eta: float | None = None
    """Noise that the solver adds, 0 to 1, where it lets one choose (ddim). By default its own choice."""
    init: Path | None = None
    """A picture to begin from, of the model's size; see --strength."""
    strength: float = 0.6
    """With --init, how much of it is repainted: more leaves less of it. In (0, 1]."""
    rows: int = 16
    """Network rows in one call; a guided image takes two. More use the machine better, and take more memory."""
    mode: Literal["eager", "compiled", "graph"] = "eager"
    """How a turn of the loop is run. compiled takes a minute before the first image and is faster then; graph, on CUDA
    alone, replays the whole turn as one."""
    ways: Literal["auto", "plain"] = "auto"
    """auto: on a CPU, 3x3 convolutions by Winograd's way: faster, off by some 1e-5; plain: as the network has them."""


def sample(args: Sequence[str]) -> dict[str, Any]:
    """`qx sample`."""
    options = parse(Sample, args, "qx sample")
    device = device_of(options)
    model = _open(options, device)
    with asked("--mode"):
        engine = model.engine(options.rows, mode=options.mode)
    clip = model.clip(options.solver) if isinstance(model, Pipeline) else None
    classes = engine.inputs.classes
    against = _against(options, model)
    requests = [
        Request(
            streams.derive(options.seed, "image", i),
            options.solver,
            options.steps,
            options.guidance if told else 1.0,
            label,
            clip,
            options.eta,
            condition,
            init,
            options.strength if init is not None else 1.0,
            against=against if told else None,
        )
        for i, (label, condition, init, told) in enumerate(_wanted(options, model, engine))
    ]
    began = time.perf_counter()
    with console.progress("sampling", options.n) as bar:
        done = 0

        def count(more: int) -> None:
            nonlocal done
            done += more
            bar.update(done)

        try:
            images = model.decode(engine.sample(requests, count))
        except RequestError as error:  # all requests are alike, so its number says nothing
            raise UsageError(str(error).partition(": ")[2] or str(error)) from None
    seconds = time.perf_counter() - began
    out = options.out or (options.run / "samples")
    out.mkdir(parents=True, exist_ok=True)
    columns = classes if classes is not None and options.label is None and classes <= 12 else round(options.n**0.5)
    zoom = max(1, SHOWN // (max(1, columns) * images.shape[-1]))
    save_png(grid(images, max(1, columns), zoom=zoom, gap=max(2, zoom), background=96), out / "samples.png")
    labels = np.array([-1 if request.label is None else request.label for request in requests])
    np.savez(out / "samples.npz", images=images.cpu().numpy(), labels=labels)
    result = {"samples": options.n, "solver": options.solver, "steps": options.steps, "guidance": options.guidance}
    result |= {"seconds": seconds, "images_per_second": options.n / seconds, "device": device.type}
    result |= {"picture": str(out / "samples.png"), "images": str(out / "samples.npz")}
    write_json(out / "result.json", result)
    words = f"{options.n} images in {seconds:.1f} s: {out / 'samples.png'} and {out / 'samples.npz'}"
    console.out.print(words, soft_wrap=True)
    return result


def _open(options: Sample, device: torch.device) -> Parts:
    """The model: a `Pipeline` of ours, or a `Stock` of diffusers."""
    path = options.run
    model: Parts
    if (path / INDEX).is_file():
        from generative.diffusion.stock.folder import open_folder  # seconds to load

        model = open_folder(path)
    else:
        folder = path / "model" if (path / "model").is_dir() else path
        if folder == path and (path / "config.json").is_file() and not (path / "model.json").is_file():
            raise UsageError(f"{path}: this run is not finished; go on with `qx resume {path}`")
        model = Pipeline.load(folder)
        model.network.eval()
    model.to(device)
    quick = options.ways == "auto" and device.type == "cpu" and options.mode == "eager"
    return model.using(swift(model.network)) if quick else model


def _wanted(options: Sample, model: Parts, engine: Engine) -> list[tuple[int | None, Any, Tensor | None, bool]]:
    """(label, condition, init, whether there is anything to guide towards) of each image."""
    classes, n = engine.inputs.classes, options.n
    if model.text is not None and not options.prompt:
        console.err.print("[dim]no --prompt: drawn without being told what[/]")
    if options.label is not None and classes is None:
        raise UsageError(f"--label {options.label}: this model knows no labels")
    if options.prompt and model.text is None:
        raise UsageError(f"--prompt {options.prompt[0]!r}: this model reads no prompts")
    labels = [options.label if classes is None or options.label is not None else i % classes for i in range(n)]
    init = None if options.init is None else _picture(options.init, engine, model)
    if not options.prompt:
        return [(label, None, init, label is not None) for label in labels]
    told = model.conditions(list(options.prompt))
    return [(label, told[i % len(told)], init, True) for i, label in enumerate(labels)]


def _against(options: Sample, model: Parts) -> dict[str, Tensor] | None:
    """The condition to lead away from."""
    if options.against is None:
        return None
    if not options.prompt or options.guidance == 1:
        raise UsageError(f"--against {options.against!r}: needs a --prompt to lead to, and --guidance other than 1")
    return model.conditions([options.against])[0]


def _picture(path: Path, engine: Engine, model: Parts) -> Tensor:
    """The sample that a picture is. Raises UsageError where there is none of the model's size."""
    from PIL import Image

    latents = model.latents
    grey = (engine.inputs.shape[0] if latents is None else latents.autoencoder.config.in_channels) == 1
    try:
        with Image.open(path) as opened:
            read = np.asarray(opened.convert("L" if grey else "RGB"))
    except OSError as error:
        raise UsageError(f"--init {path}: not a picture ({error})") from None
    image = torch.from_numpy(read.copy()).float().div(127.5).sub(1)
    image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)  # [C, H, W]
    found = model.encode(image[None])[0]
    if tuple(found.shape) != engine.inputs.shape:
        _, height, width = engine.inputs.shape
        times = image.shape[-1] // found.shape[-1]
        raise UsageError(
            f"--init {path}: {image.shape[-1]} x {image.shape[-2]} pixels; expected {width * times} x {height * times}"
        )
    return found
