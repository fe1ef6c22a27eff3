"""A denoiser one can keep: network, noise and what it is told together, drawn from by class or prompt, saved, loaded.

    pipeline = Pipeline.build(DiffusionConfig(), Subject((1, 8, 8), classes=10), generator)
    ... train pipeline.network for pipeline.objective() ...
    images = pipeline.sample([3] * 16, seed=0)          # sixteen threes
    pipeline.save(folder);  Pipeline.load(folder)

It is saved as `generative.saved` has it, with the two configurations for a description; text encoder and autoencoder
stand beside it, each in a folder as transformers and diffusers write it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.dit import DiT
from backbones.initialise import build
from backbones.mlp_denoiser import MLPDenoiser
from backbones.unet import UNet
from generative import saved
from generative.diffusion.engine.request import Request
from generative.diffusion.latents.prompted import prompted_unet
from generative.diffusion.latents.text import Text
from generative.diffusion.noise.continuous import CONTINUOUS
from generative.diffusion.noise.denoiser import Prediction
from generative.diffusion.noise.schedule import SCHEDULES, Schedule
from generative.diffusion.parts import Parts
from generative.diffusion.solvers.compiler import AllSolvers
from generative.diffusion.stock.adapters import Latents
from generative.diffusion.training.objective import DDPM
from generative.diffusion.training.weight import Weight
from lab import streams

KIND = "diffusion model"
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


class Pipeline(Parts):
    """A network with all that is needed to draw from it.

    Args:
        config: what it is made of.
        subject: what it draws.
        network: its weights, made by `build` or trained since.
        text: for one that reads prompts.
        latents: for one that draws latents.

    Raises:
        ValueError: where `text` or `latents` are missing, or there is nothing to use them.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        subject: Subject,
        network: nn.Module,
        text: Text | None = None,
        latents: Latents | None = None,
    ) -> None:
        for part, needed, given in (("text", subject.features, text), ("latents", subject.latent or None, latents)):
            if (needed is None) != (given is None):
                raise ValueError(f"{part} is {given}: expected {'one' if given is None else 'None'} for {subject}")
        self.config, self.subject, self.network, self.text, self.latents = config, subject, network, text, latents
        self.shape, self.classes = subject.shape, subject.classes
        self.schedule = schedule_of(config)

    @classmethod
    def build(cls, config: DiffusionConfig, subject: Subject, generator: torch.Generator) -> Pipeline:
        """An untrained one of images, told classes or nothing, with weights drawn from `generator`."""
        return cls(config, subject, build(lambda: network_of(config, subject), generator))

    def objective(self, dropout: float = 0.1, weight: Weight = "uniform") -> DDPM:
        """What to train the network for; `dropout` is the share of samples without label."""
        return objective_of(self.config, self.subject, dropout, weight)

    def compiler(self) -> AllSolvers:
        """Our solvers, and diffusers' under their names in `schedulers`."""
        return AllSolvers(self.schedule, self.config.says)

    @property
    def clip(self) -> float | None:
        """Bound on the estimates of the clean data: images are in [-1, 1], latents anywhere."""
        return None if self.subject.latent else 1.0

    def requests(
        self,
        told: Sequence[int | str | None],
        *,
        seed: int,
        solver: str = "dpmpp-2m",
        steps: int = 25,
        guidance: float = 1.0,
    ) -> list[Request]:
        """One request for each label or prompt (None: for anything), image i from stream i of the seed.

        So a longer list begins with the same images. Raises ValueError for a prompt to a network that reads none.
        """
        words = list(dict.fromkeys(each for each in told if isinstance(each, str)))
        condition: Mapping[str, Any] = dict(zip(words, self.conditions(words) if words else [], strict=True))
        return [
            Request(
                streams.derive(seed, "image", i),
                solver,
                steps,
                1.0 if each is None else guidance,
                each if isinstance(each, int) else None,
                self.clip,
                condition=condition[each] if isinstance(each, str) else None,
            )
            for i, each in enumerate(told)
        ]

    def sample(
        self,
        told: Sequence[int | str | None],
        *,
        seed: int,
        solver: str = "dpmpp-2m",
        steps: int = 25,
        guidance: float = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Float[Tensor, "N C H W"]:
        """One image in [-1, 1] for each label or prompt (None: for anything).

        `progress` hears how many were just finished.

        Raises:
            RequestError: for a label, solver or number of steps that there is not.
            ValueError: for a prompt to a network that reads none.
        """
        wanted = self.requests(told, seed=seed, solver=solver, steps=steps, guidance=guidance)
        return self.decode(self.engine().sample(wanted, progress))

    def frames(self, requests: Sequence[Request]) -> Iterator[Float[Tensor, "N C H W"]]:
        """The denoising itself: all images in pure noise, and after each call of the network."""
        engine = self.engine()
        samples = torch.stack([engine.start(request) for request in requests])
        yield self._shown(samples)
        for tick in engine.steps(requests):
            for number in tick.running:
                samples[number] = engine.peek(number)
            for number, sample in tick.finished:
                samples[number] = sample
            yield self._shown(samples)

    def _shown(self, samples: Tensor) -> Tensor:
        return samples.clone() if self.latents is None else self.decode(samples)

    def save(self, folder: Path) -> None:
        """Write the folder (see `generative.saved`)."""
        if self.text is not None:
            self.text.save(folder)
        if self.latents is not None:
            self.latents.autoencoder.save_pretrained(folder / "vae")
        description = dataclasses.asdict(self.config) | dataclasses.asdict(self.subject)
        saved.save(folder, KIND, description, self.network)

    @classmethod
    def load(cls, folder: Path) -> Pipeline:
        """The inverse of `save`. Raises ModelError when it is missing, damaged or of another format."""
        description, network = saved.load(folder, KIND, lambda fields: network_of(*_configs(fields)))
        config, subject = _configs(description)
        try:
            text = None if subject.features is None else Text.load(folder)
            latents = Latents.load(folder / "vae") if subject.latent else None
            return cls(config, subject, network, text, latents)
        except (OSError, ValueError) as error:
            raise saved.ModelError(f"{folder}: {' '.join(str(error).split())[:300]}") from None


def schedule_of(config: DiffusionConfig) -> Schedule:
    """The noise by its name, of `TIMESTEPS` timesteps where it has such."""
    if config.schedule in CONTINUOUS:
        return CONTINUOUS[config.schedule]()
    return SCHEDULES[config.schedule](TIMESTEPS)


def objective_of(config: DiffusionConfig, subject: Subject, dropout: float, weight: Weight) -> DDPM:
    """What such a network is trained for; prompts are told by `latents.prompted`. Raises ValueError, see `DDPM`."""
    return DDPM(schedule_of(config), config.says, null=subject.classes, dropout=dropout, weight=weight)


def network_of(config: DiffusionConfig, subject: Subject) -> nn.Module:
    """The network, untrained. Raises ValueError for sizes that do not fit each other."""
    channels, height, width = subject.shape
    if config.backbone == "mlp":
        if subject.features is not None:
            raise ValueError("backbone is 'mlp', which reads no prompts; expected 'unet' or 'dit'")
        return MLPDenoiser(subject.shape, config.width, config.blocks, subject.classes)
    if config.backbone == "dit":
        heads = max(1, config.width // HEAD)
        return DiT(
            (height, width),
            channels,
            config.patch,
            config.width,
            config.blocks,
            heads,
            subject.classes,
            context=subject.features,
        )
    if subject.features is None:
        return UNet(
            channels,
            channels,
            width=config.width,
            multipliers=config.multipliers,
            blocks=config.blocks,
            attention=config.attention,
            classes=subject.classes,
            head_width=HEAD,
        )
    if config.multipliers[:1] != (1,):
        raise ValueError(f"multipliers is {config.multipliers}; a unet that reads prompts begins with 1")
    return prompted_unet(
        channels,
        subject.features,
        width=config.width,
        multipliers=config.multipliers[1:],
        blocks=config.blocks,
        attention=config.attention,
        head_width=HEAD,
    )


def _configs(fields: Mapping[str, Any]) -> tuple[DiffusionConfig, Subject]:
    """The configurations as JSON gave them back, where tuples are lists."""
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    names = {field.name for field in dataclasses.fields(Subject)}
    return (
        DiffusionConfig(**{name: value for name, value in given.items() if name not in names}),
        Subject(**{name: value for name, value in given.items() if name in names}),
    )
