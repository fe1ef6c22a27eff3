"""What a diffusion model is made of: its network, the noise it is trained on, and what it is trained for.

Two configurations say all of it: `DiffusionConfig` what was chosen, `Subject` what the data asks for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from backbones.dit import DiT
from backbones.mlp_denoiser import MLPDenoiser
from backbones.unet import UNet
from generative.diffusion.noise.continuous import CONTINUOUS
from generative.diffusion.noise.denoiser import Prediction
from generative.diffusion.noise.schedule import SCHEDULES, Schedule
from generative.diffusion.training.objective import DDPM
from generative.diffusion.training.self_conditioning import SelfConditioned
from generative.diffusion.training.variance import Hybrid
from generative.diffusion.training.weight import Weight
from generative.train import Objective

TIMESTEPS = 1000
HEAD = 32  # channels of an attention head

ScheduleName = Literal[
    "linear",
    "scaled-linear",
    "cosine",
    "sigmoid",
    "linear-zero-snr",
    "scaled-linear-zero-snr",
    "edm",
    "flow",
    "flow-logit-normal",
]


@dataclass(frozen=True)
class DiffusionConfig:
    """The network and the noise it is trained on. The defaults are those of the 8x8 digits."""

    backbone: Literal["unet", "dit", "mlp"] = "unet"
    """The denoising network: residual convolutions (unet), a Transformer over patches (dit), or a perceptron (mlp)."""
    width: int = 32
    """Channels of the first level; of dit and mlp, of all. Larger fits finer detail; time grows with its square."""
    multipliers: tuple[int, ...] = (1, 2)
    """Of a unet: channels of each level in units of the width; each further level halves the image."""
    blocks: int = 2
    """Residual blocks a level of a unet; blocks in all of dit and mlp. More fit more, at a proportional cost."""
    attention: tuple[int, ...] = (1,)
    """Of a unet: levels, from 0, whose pixels attend to each other. More join distant parts; slow at large images."""
    patch: int = 2
    """Of a dit: side of the squares that it takes for words. Smaller sees finer; time grows with its inverse square."""
    schedule: ScheduleName = "cosine"
    """How noise grows with the timestep. Cosine leaves small images readable for longer."""
    prediction: Literal["auto", "eps", "x0", "v", "flow", "edm"] = "auto"
    """What the network says: the noise (eps), the data (x0), the velocity between them (v, or flow of a flow), or what
    suits its scale (edm); auto is what belongs to the schedule: flow, edm or v."""
    self_conditioning: bool = False
    """Show the network its last estimate of the clean data, too. It helps few steps, and costs a third of the time."""
    learned_variance: bool = False
    """Let the network also say how much noise a step of ddpm adds; for schedules of timesteps."""

    @property
    def says(self) -> Prediction:
        """The prediction, "auto" resolved."""
        if self.prediction != "auto":
            return self.prediction
        return "edm" if self.schedule == "edm" else "flow" if self.schedule.startswith("flow") else "v"


@dataclass(frozen=True)
class Subject:
    """What the network draws and is told; the data decides it."""

    shape: tuple[int, int, int]
    """Channels, height and width of a sample: an image, or a latent."""
    classes: int | None = None
    """Number of labels; None for a model without."""
    features: int | None = None
    """Of each id of a prompt; None for a model that reads none."""
    latent: bool = False
    """Whether a sample is a latent."""
    pooled: bool = False
    """Of a dit that reads prompts: whether their last id is also a part of the condition (see `DiT`). Models that were
    saved before there was a choice have none, and do not say so."""


def schedule_of(config: DiffusionConfig) -> Schedule:
    """The noise by its name, of `TIMESTEPS` timesteps where it has such."""
    if config.schedule in CONTINUOUS:
        return CONTINUOUS[config.schedule]()
    return SCHEDULES[config.schedule](TIMESTEPS)


def objective_of(config: DiffusionConfig, subject: Subject, dropout: float, weight: Weight) -> Objective:
    """What such a network is trained for; prompts are told by `latents.prompted`.

    Raises:
        ValueError: where the prediction determines no data at a level, or two parts exclude each other.
    """
    plain = DDPM(schedule_of(config), config.says, null=subject.classes, dropout=dropout, weight=weight)
    if config.self_conditioning and config.learned_variance:
        raise ValueError("self_conditioning and learned_variance are not learned together; expected one of them")
    if config.learned_variance:
        return Hybrid(plain)
    return SelfConditioned(plain, clip=math.inf if subject.latent else 1.0) if config.self_conditioning else plain


def network_of(config: DiffusionConfig, subject: Subject) -> nn.Module:
    """The network, untrained. Raises ValueError for sizes that do not fit each other."""
    channels, height, width = subject.shape
    into, out = channels * (1 + config.self_conditioning), channels * (1 + config.learned_variance)
    if config.backbone == "mlp":
        if subject.features is not None:
            raise ValueError("backbone is 'mlp', which reads no prompts; expected 'unet' or 'dit'")
        if into != out:
            raise ValueError("backbone is 'mlp', which takes what it says; expected 'unet' or 'dit'")
        return MLPDenoiser(subject.shape, config.width, config.blocks, subject.classes)
    if config.backbone == "dit":
        heads = max(1, config.width // HEAD)
        return DiT(
            (height, width),
            into,
            config.patch,
            config.width,
            config.blocks,
            heads,
            subject.classes,
            out_channels=out,
            context=subject.features,
            pooled=subject.pooled,
        )
    if subject.features is not None and config.multipliers[:1] != (1,):
        raise ValueError(f"multipliers is {config.multipliers}; a unet that reads prompts begins with 1")
    return UNet(
        into,
        out,
        width=config.width,
        multipliers=config.multipliers,
        blocks=config.blocks,
        attention=config.attention,
        classes=subject.classes,
        head_width=HEAD,
        context=subject.features,
    )
