"""`qx sample`: draw from a run of `qx diffuse`, or from a folder that diffusers wrote, through the batched loop."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from backbones.cpu.swift import swift
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.parts import Parts
from generative.diffusion.pictures import grid, save_png
from lab import console, streams
from lab.run import write_json
from qx.diffusion_open import model_folder, opened
from qx.jobs import device_of
from qx.sample_init import Beginning, beginning
from qx.usage import Common, UsageError, asked, parse

SHOWN = 640  # pixels of the picture's side, at least
DTYPES = {"float32": None, "bfloat16": torch.bfloat16}  # what an engine is told of the network's


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
    """A picture to begin from; see --strength. It is read as those of a folder: its middle square, resized to the
    model's size, set upright, laid over white where it is transparent."""
    mask: Path | None = None
    """With --init, a picture of the same proportions: what is white in it is painted anew, what is black (or
    transparent) is kept. Kept pixels are those of --init exactly; of a model of latents they are what its autoencoder
    makes of them, and the mask is as coarse as its latents."""
    strength: float | None = None
    """With --init, how much of it is repainted: more leaves less of it. In (0, 1]; by default 0.6, with --mask 1."""
    rows: int = 16
    """Network rows in one call; a guided image takes two. More use the machine better, and take more memory."""
    mode: Literal["eager", "compiled", "graph"] = "eager"
    """How a turn of the loop is run. compiled takes a minute before the first image and is faster then; graph, on CUDA
    alone, replays the whole turn as one."""
    ways: Literal["auto", "plain"] = "auto"
    """auto: on a CPU, in float32, the layers by kernels of our own: faster, off by some 1e-5; plain: as the network
    has them."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the network. bfloat16 halves its memory, and its answers hold 2 to 3 digits; all else stays in float32."""


def sample(args: Sequence[str]) -> dict[str, Any]:
    """`qx sample`."""
    options = parse(Sample, args, "qx sample")
    device = device_of(options)
    model = _open(options, device)
    with asked("--mode"):
        engine = model.engine(options.rows, mode=options.mode, network_dtype=DTYPES[options.dtype])
    clip = model.clip(options.solver)
    classes = engine.inputs.classes
    against, begun = _against(options, model), beginning(model, options.init, options.mask, options.strength)
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
            begun.init,
            begun.strength,
            begun.mask,
            against=against if told else None,
        )
        for i, (label, condition, told) in enumerate(_wanted(options, model, engine))
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
    result |= _asked_for(options, begun)
    result |= {"picture": str(out / "samples.png"), "images": str(out / "samples.npz")}
    write_json(out / "result.json", result)
    words = f"{options.n} images in {seconds:.1f} s: {out / 'samples.png'} and {out / 'samples.npz'}"
    console.out.print(words, soft_wrap=True)
    return result


def _open(options: Sample, device: torch.device) -> Parts:
    """The model: a `Pipeline` of ours, or a `Stock` of diffusers."""
    model: Parts = opened(model_folder(options.run))
    model.to(device)
    if (dtype := DTYPES[options.dtype]) is not None:
        model.network.to(dtype)
        return model  # the kernels are for float32
    quick = options.ways == "auto" and device.type == "cpu" and options.mode == "eager"
    return model.using(swift(model.network, options.rows, math.prod(model.shape[1:]))) if quick else model


def _wanted(options: Sample, model: Parts, engine: Engine) -> list[tuple[int | None, Any, bool]]:
    """(label, condition, whether there is anything to guide towards) of each image."""
    classes, n = engine.inputs.classes, options.n
    if options.label is not None and classes is None:
        raise UsageError(f"--label {options.label}: this model knows no labels")
    if options.prompt and model.text is None:
        raise UsageError(f"--prompt {options.prompt[0]!r}: this model reads no prompts")
    labels = [options.label if classes is None or options.label is not None else i % classes for i in range(n)]
    if model.text is not None and not options.prompt:
        console.err.print("[dim]no --prompt: drawn without being told what[/]")
    if not options.prompt:
        return [(label, None, label is not None) for label in labels]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        told = model.conditions(list(options.prompt))
    for line in {str(warning.message) for warning in said if warning.category is UserWarning}:
        console.err.print(f"[dim]{console.escape(line)}[/]", soft_wrap=True)
    return [(label, told[i % len(told)], True) for i, label in enumerate(labels)]


def _against(options: Sample, model: Parts) -> dict[str, Tensor] | None:
    """The condition to lead away from."""
    if options.against is None:
        return None
    if not options.prompt or options.guidance == 1:
        raise UsageError(f"--against {options.against!r}: needs a --prompt to lead to, and --guidance other than 1")
    return model.conditions([options.against])[0]


def _asked_for(options: Sample, begun: Beginning) -> dict[str, Any]:
    """What was asked beside solver, steps and guidance, where it was given, for result.json."""
    found: dict[str, Any] = {"dtype": options.dtype}
    if options.prompt:
        found["prompts"] = list(options.prompt)
    if options.against is not None:
        found["against"] = options.against
    if options.init is not None:
        found |= {"init": str(options.init), "strength": begun.strength}
    if options.mask is not None:
        found["mask"] = str(options.mask)
    return found
