"""A denoiser one can keep: network, schedule, prediction and labels together, drawn from by class, saved and loaded.

    pipeline = Pipeline.build(DiffusionConfig(), generator)
    ... train pipeline.network for pipeline.objective() ...
    images = pipeline.sample([3] * 16, seed=0)          # sixteen threes
    pipeline.save(folder);  Pipeline.load(folder)

It is saved as `generative.saved` has it; the description is the configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.initialise import build
from backbones.unet import UNet
from generative import saved
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.noise.denoiser import Prediction
from generative.diffusion.noise.schedule import SCHEDULES
from generative.diffusion.solvers.compiler import AllSolvers
from generative.diffusion.training.objective import DDPM
from lab import streams

KIND = "diffusion model"


@dataclass(frozen=True)
class DiffusionConfig:
    """The network and the noise it is trained on. The defaults are those of the 8x8 digits."""

    shape: tuple[int, int, int] = (1, 8, 8)
    """Channels, height and width of an image."""
    classes: int | None = 10
    """Number of labels; None for a model without."""
    width: int = 32
    """Channels of the first level. Larger fits finer detail and costs its square in time."""
    multipliers: tuple[int, ...] = (1, 2)
    """Channels of each level in units of the width; each further level halves the image."""
    blocks: int = 2
    """Residual blocks a level. More fit more, at a proportional cost."""
    attention: tuple[int, ...] = (1,)
    """Levels, from 0, whose pixels attend to each other. More join distant parts; slow at large images."""
    schedule: Literal["linear", "scaled-linear", "cosine"] = "cosine"
    """How noise grows with the timestep. Cosine leaves small images readable for longer."""
    prediction: Prediction = "v"
    """What the network says: the noise (eps), the data (x0), or the velocity between them (v)."""


class Pipeline:
    """A network with all that is needed to draw from it.

    Args:
        config: what it is made of.
        network: its weights, made by `build` or trained since.
    """

    def __init__(self, config: DiffusionConfig, network: nn.Module) -> None:
        self.config, self.network = config, network
        self.schedule = SCHEDULES[config.schedule](1000)

    @classmethod
    def build(cls, config: DiffusionConfig, generator: torch.Generator) -> Pipeline:
        """An untrained one with weights drawn from `generator`."""
        return cls(config, build(lambda: _network(config), generator))

    def objective(self, dropout: float = 0.1) -> DDPM:
        """What to train the network for; `dropout` is the share of samples without label."""
        return DDPM(self.schedule, self.config.prediction, null=self.config.classes, dropout=dropout)

    def engine(self, rows: int = 64, *, prove: bool = False) -> Engine:
        """The loop that draws from it, on the network's device. `prove` and what it raises: see `Engine`.

        Requests may name our solvers, and diffusers' under their names in `schedulers`.
        """
        return Engine(
            self.network,
            self.config.shape,
            AllSolvers(self.schedule, self.config.prediction),
            rows=rows,
            classes=self.config.classes,
            device=next(self.network.parameters()).device,
            prove=prove,
        )

    def requests(
        self,
        labels: Sequence[int | None],
        *,
        seed: int,
        solver: str = "dpmpp-2m",
        steps: int = 25,
        guidance: float = 1.0,
        clip: float | None = 1.0,
    ) -> list[Request]:
        """One request for each label, image i from stream i of the seed: a longer list begins with the same images."""
        return [
            Request(streams.derive(seed, "image", i), solver, steps, 1.0 if label is None else guidance, label, clip)
            for i, label in enumerate(labels)
        ]

    def sample(
        self,
        labels: Sequence[int | None],
        *,
        seed: int,
        solver: str = "dpmpp-2m",
        steps: int = 25,
        guidance: float = 1.0,
        clip: float | None = 1.0,
        progress: Callable[[int], None] | None = None,
    ) -> Float[Tensor, "N C H W"]:
        """One image in [-1, 1] for each label (None: of any class); `progress` hears how many were just finished.

        Raises:
            RequestError: for a label, solver or number of steps that there is not.
        """
        wanted = self.requests(labels, seed=seed, solver=solver, steps=steps, guidance=guidance, clip=clip)
        return self.engine().sample(wanted, progress)

    def frames(self, requests: Sequence[Request]) -> Iterator[Float[Tensor, "N C H W"]]:
        """The denoising itself: all images in pure noise, and after each call of the network."""
        engine = self.engine()
        images = torch.stack([engine.start(request) for request in requests])
        yield images.clone()
        for tick in engine.steps(requests):
            for number in tick.running:
                images[number] = engine.peek(number)
            for number, image in tick.finished:
                images[number] = image
            yield images.clone()

    def save(self, folder: Path) -> None:
        """Write the folder (see `generative.saved`)."""
        saved.save(folder, KIND, dataclasses.asdict(self.config), self.network)

    @classmethod
    def load(cls, folder: Path) -> Pipeline:
        """The inverse of `save`. Raises ModelError when it is missing, damaged or of another format."""
        description, network = saved.load(folder, KIND, lambda fields: _network(_config(fields)))
        return cls(_config(description), network)


def _config(fields: dict[str, Any]) -> DiffusionConfig:
    """The configuration as JSON gave it back, where tuples are lists."""
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    return DiffusionConfig(**given)


def _network(config: DiffusionConfig) -> UNet:
    channels = config.shape[0]
    return UNet(
        channels,
        channels,
        width=config.width,
        multipliers=config.multipliers,
        blocks=config.blocks,
        attention=config.attention,
        classes=config.classes,
    )
