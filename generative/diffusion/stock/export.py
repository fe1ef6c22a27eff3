"""Writing a folder that diffusers reads with none of our code.

    save_folder(Path("digits"), stock_of(pipeline))
    diffusers.DiffusionPipeline.from_pretrained("digits")

What the network is decides the pipeline: a UNet of images a `DDPMPipeline` or `DDIMPipeline` (by its scheduler), of
latents an `LDMPipeline`, of prompts a `StableDiffusionPipeline`; a DiT a `DiTPipeline`.

No stock pipeline shows a UNet labels. One that was trained with classes is written as a `DDPMPipeline` or
`DDIMPipeline` all the same: it loads, and its parts are stock, but its call fails, and this loop draws from it:

    pipe = diffusers.DiffusionPipeline.from_pretrained("digits")
    pipe.scheduler.set_timesteps(50)
    for t in pipe.scheduler.timesteps:
        told, null = (pipe.unet(x, t, class_labels=torch.full((len(x),), label)).sample for label in (3, 10))
        x = pipe.scheduler.step(null + guidance * (told - null), t, x).prev_sample

The null label is the last class vector. In a `DiTPipeline` it is 1000, whatever the number of classes: the labels in
between are filled with the null label's vector, and left out again when we read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from backbones.convert import dit, folders, unet
from backbones.dit import DiT
from backbones.unet import UNet
from generative.diffusion.noise.denoiser import Prediction
from generative.diffusion.noise.schedule import NoiseSchedule
from generative.diffusion.noise.spacing import SolverError
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.solvers.schedulers import scheduler_of
from generative.diffusion.stock.adapters import FirstChannels
from generative.diffusion.stock.stock import FORCED, INDEX, KINDS, Stock, widened

SOLVERS = {"ddpm": "DDPMScheduler", "ddim": "DDIMScheduler"}
NAMED: tuple[dict[str, Any], ...] = (
    {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "squaredcos_cap_v2"},
)
"""diffusers' settings for the schedules that have a name there."""


def scheduler_for(
    schedule: NoiseSchedule, prediction: Prediction, solver: Literal["ddpm", "ddim"] = "ddim", clip: float | None = None
) -> Any:
    """diffusers' DDPMScheduler or DDIMScheduler for a network trained with this noise to say this.

    Its steps are "trailing", as ours are. The betas are given by name where diffusers has the schedule, else by number.

    Args:
        schedule: of the training.
        prediction: what the network says: "eps", "x0" or "v".
        solver: its class. DDPM needs many steps, DDIM few.
        clip: bound on the estimates of the clean data, or None; 1 for images, None for latents. DDPM then draws what
            our "ddpm" draws; DDIM keeps the direction of the unclipped estimate, unless its pipeline is told
            `use_clipped_model_output`, and so do we when we read the folder, but not our own "ddim".

    Raises:
        SolverError: when diffusers has no such prediction, or no betas give the schedule.
    """
    import diffusers  # seconds to load

    plain = scheduler_of(schedule, prediction)
    changes = {"clip_sample": clip is not None, "clip_sample_range": 1.0 if clip is None else clip}
    for named in NAMED:
        like = type(plain).from_config(plain.config, trained_betas=None, **named)
        if (like.alphas_cumprod - plain.alphas_cumprod).abs().le(1e-3 * plain.alphas_cumprod).all():
            plain = like
    return getattr(diffusers, SOLVERS[solver]).from_config(plain.config, **changes)


def stock_of(pipeline: Pipeline, solver: Literal["ddpm", "ddim"] = "ddim", clip: float | None = 1.0) -> Stock:
    """A pipeline of ours in stock parts; `solver` and `clip` as `scheduler_for` takes them; latents are not clipped.

    Raises:
        SolverError: when diffusers has no such prediction, or no betas give the schedule.
    """
    schedule = pipeline.schedule
    if not isinstance(schedule, NoiseSchedule):
        raise SolverError(f"the schedule is {type(schedule).__name__}; stock pipelines have betas")
    bound = None if pipeline.latents is not None else clip
    scheduler = scheduler_for(schedule, pipeline.config.says, solver, bound)
    return Stock(
        pipeline.network, pipeline.shape, scheduler, pipeline.classes, latents=pipeline.latents, text=pipeline.text
    )


def save_folder(path: Path, stock: Stock) -> str:
    """Write the folder, which must be new or empty, and return the name of its pipeline.

    `model_index.json` is written last, so that a folder cut short is not taken for a pipeline.

    Raises:
        FileExistsError: when there is something in the folder.
        ValueError: when no stock pipeline holds such a network, or it has parts too many or too few.
    """
    import diffusers

    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path}: not empty; expected a new folder")
    kind, part, config, weights = _network(stock)
    scheduler, parts = stock.scheduler, dict(KINDS[kind])
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": diffusers.__version__}
    if kind == "StableDiffusionPipeline":
        told = {key: value for key, value in FORCED.items() if key in scheduler.config}
        scheduler = type(scheduler).from_config(scheduler.config, **told)
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    if kind == "DiTPipeline" and stock.labels:
        index["id2label"] = _words(stock.labels)
    folders.write(path / part, config, weights)
    holds: dict[str, Any] = {"scheduler": scheduler}
    if stock.latents is not None:
        holds["vqvae" if "vqvae" in parts else "vae"] = stock.latents.autoencoder
    if stock.text is not None:
        holds |= {"text_encoder": stock.text.encoder, "tokenizer": stock.text.tokenizer}
    index[part] = ["diffusers", config["_class_name"]]
    for name, held in holds.items():
        held.save_pretrained(path / name)
        index[name] = [type(held).__module__.partition(".")[0], type(held).__name__]
    (path / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return kind


def _network(stock: Stock) -> tuple[str, str, dict[str, Any], dict[str, Tensor]]:
    """(pipeline, its part, config, weights) for the network."""
    network: nn.Module = stock.network
    if isinstance(network, FirstChannels):
        network = network.network
    channels, *size = stock.shape
    if isinstance(network, DiT):
        config, weights = widened(*dit.save(network))
        kind, part = "DiTPipeline", "transformer"
        made = (network.arguments["channels"], [config["sample_size"]] * 2)
        if made != (channels, size):
            raise ValueError(f"samples are {list(stock.shape)}; the DiT is made for {[made[0], *made[1]]}")
    elif isinstance(network, UNet):
        config, weights = unet.save(network)
        config["sample_size"] = size[0] if size[0] == size[1] else size
        kind, part = _kind(network, stock), "unet"
        if kind == "LDMPipeline" and size[0] != size[1]:
            raise ValueError(f"an LDMPipeline has square latents; samples are {list(stock.shape)}")
    else:
        raise ValueError(f"the network is a {type(network).__name__}; expected a UNet or a DiT of backbones")
    holds = KINDS[kind].keys()
    for words, wanted, held in (
        ("an autoencoder", "vae" in holds or "vqvae" in holds, stock.latents),
        ("a text encoder", "text_encoder" in holds, stock.text),
    ):
        if wanted and held is None:
            raise ValueError(f"a {kind} holds {words}; given none")
        if held is not None and not wanted:
            raise ValueError(f"a {kind} does not hold {words}; given one")
    if stock.latents is not None and stock.latents.autoencoder.config.get("shift_factor"):
        raise ValueError("the autoencoder has a shift_factor, which no stock pipeline reads: put it into the weights")
    return kind, part, config, weights


def _kind(network: UNet, stock: Stock) -> str:
    if network.context is not None:
        return "StableDiffusionPipeline"
    if stock.latents is not None:
        return "LDMPipeline"
    name = type(stock.scheduler).__name__
    if name not in SOLVERS.values():
        raise ValueError(f"a stock pipeline of images has a DDPMScheduler or DDIMScheduler; the scheduler is a {name}")
    return name.replace("Scheduler", "Pipeline")


def _words(labels: Mapping[str, int]) -> dict[str, str]:
    """The names of each label, as `DiTPipeline` reads them."""
    return {str(i): ", ".join(word for word, j in labels.items() if j == i) for i in sorted(set(labels.values()))}
