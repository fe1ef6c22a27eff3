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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.initialise import build
from generative import saved
from generative.diffusion.engine.request import Request
from generative.diffusion.latents.text import Text
from generative.diffusion.model import DiffusionConfig, Subject, network_of, objective_of, schedule_of
from generative.diffusion.parts import Parts
from generative.diffusion.solvers.compiler import AllSolvers
from generative.diffusion.solvers.solver import SOLVERS
from generative.diffusion.stock.adapters import Latents
from generative.diffusion.training.weight import Weight
from generative.train import Objective

KIND = "diffusion model"


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
        self.learned_variance, self.self_conditioned = config.learned_variance, config.self_conditioning

    @classmethod
    def build(cls, config: DiffusionConfig, subject: Subject, generator: torch.Generator) -> Pipeline:
        """An untrained one of images, told classes or nothing, with weights drawn from `generator`."""
        return cls(config, subject, build(lambda: network_of(config, subject), generator))

    def objective(self, dropout: float = 0.1, weight: Weight = "uniform") -> Objective:
        """What to train the network for; `dropout` is the share of samples without label."""
        return objective_of(self.config, self.subject, dropout, weight)

    def compiler(self) -> AllSolvers:
        """Our solvers, and diffusers' under their names in `schedulers`."""
        return AllSolvers(self.schedule, self.config.says)

    def clip(self, solver: str) -> float | None:
        """Bound on a solver's estimates of the clean data, as it is usually drawn with.

        Images are in [-1, 1], latents anywhere; of diffusers' own solvers some cannot be bounded, and few are.
        """
        return 1.0 if solver in SOLVERS and not self.subject.latent else None

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


def _configs(fields: Mapping[str, Any]) -> tuple[DiffusionConfig, Subject]:
    """The configurations as JSON gave them back, where tuples are lists."""
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    names = {field.name for field in dataclasses.fields(Subject)}
    return (
        DiffusionConfig(**{name: value for name, value in given.items() if name not in names}),
        Subject(**{name: value for name, value in given.items() if name in names}),
    )
