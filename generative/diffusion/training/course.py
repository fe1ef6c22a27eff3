"""All that is trained for one model, one after the other: an autoencoder where samples are latents, then the denoiser.

    course = Course(config, PartsConfig(prompts=True, latent=True), images, None, TrainConfig(), seed=0)
    for step, metrics in course.run():
        ...                                # the loop is at rest at every yield, as `generative.train` has it
    pipeline = course.result()

The metrics of the autoencoder have "autoencoder_" before their names. When it has been trained, its latents are scaled
and those of all images computed once (`latents.latent`); a text encoder learns together with the denoiser.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from jaxtyping import Int64
from torch import Tensor, nn

from backbones.initialise import build
from generative.diffusion.data.split import Images
from generative.diffusion.latents.adversary import Adversarial, PatchDiscriminator, Players
from generative.diffusion.latents.autoencoder import AutoencoderConfig, Coder, Reconstruction, autoencoder
from generative.diffusion.latents.latent import Latent, encoded, standardise, statistics
from generative.diffusion.latents.prompted import Captioned, Prompted
from generative.diffusion.latents.text import Text, TextConfig, text
from generative.diffusion.model import DiffusionConfig, Subject, network_of, objective_of
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.stock.adapters import Latents
from generative.diffusion.training.weight import Weight
from generative.train import Batch, Objective, TrainConfig, Trainer
from lab import streams

CODER = TrainConfig(batch_size=64, learning_rate=2e-3, ema=0.05)  # of the autoencoder, but for its length


@dataclass(frozen=True)
class PartsConfig:
    """What stands around the denoiser, and how it is told."""

    prompts: bool = False
    """Learn to draw by caption, with a text encoder that learns, too. On by itself where there are captions and no
    classes."""
    latent: bool = False
    """Draw latents of an autoencoder, which is trained first, in place of pixels. Faster from 32 pixels a side on."""
    dropout: float = 0.1
    """Share of samples trained without label or caption, for guidance. Larger guides better and conditions worse."""
    weight: Weight = "uniform"
    """How much each noise level counts in the loss: all alike (of what the network says), or by a published rule."""
    text_width: int = 64
    """Features of each piece of a caption. More tell more words apart."""
    text_layers: int = 2
    """Transformer layers of the text encoder. More read longer sentences, slower."""
    latent_channels: int = 4
    """Channels of a latent. More keep more of the image, and leave the denoiser more to do."""
    autoencoder_width: int = 32
    """Channels of the autoencoder's first level; the next ones have two, then four times as many."""
    halvings: int = 1
    """How often the autoencoder halves the side of an image: latents have 1/2, 1/4, 1/8 ... of it. More make the
    denoiser faster, and need more channels of a latent."""
    autoencoder_steps: int = 1000
    """Updates of the autoencoder, besides those of the denoiser."""
    kl: float = 1e-6
    """Weight of the divergence of an image's latents from N(0, I), in nats a value of the image. Larger hides less of
    a latent in decimals that noise would change, and blurs images."""
    adversary: float = 0.0
    """Weight of a discriminator of patches in the second half of the autoencoder's updates; 0 for none. Larger gives
    sharper images that are less like the data's own."""


class Course:
    """Trainer of the parts of one model; everything it holds is in `state_dict`.

    Args:
        config: the denoiser.
        parts: what stands around it.
        images: to learn from.
        classes: the number of labels, or None where the model is told none.
        train: of the denoiser.
        seed: the root of every draw.
        accelerator: device, precision and processes.

    Raises:
        ValueError: where sizes do not fit each other, or the prompts have no captions.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        parts: PartsConfig,
        images: Images,
        classes: int | None,
        train: TrainConfig,
        *,
        seed: int,
        accelerator: Accelerator | None = None,
    ) -> None:
        if parts.prompts and (images.captions is None or classes is not None):
            raise ValueError("prompts are learned from captions, by a model without classes")
        accelerator = accelerator or Accelerator()
        shape = (images.image.shape[1], images.image.shape[2], images.image.shape[3])
        self.config, self.images = config, images
        self.first = _first(parts, shape, images, train, seed, accelerator) if parts.latent else None
        self.text: Text | None = None
        told: Batch = {} if classes is None or images.label is None else {"label": images.label}
        if parts.prompts and images.captions is not None:
            size = TextConfig(width=parts.text_width, layers=parts.text_layers)
            if size.width % size.heads:
                raise ValueError(f"text_width is {size.width}; expected a multiple of {size.heads}, its heads")
            self.text = text(images.captions, size, streams.generator(seed, "text"))
            told = {"tokens": self.text.tokens(images.captions).ids}
        self.data = _Waiting(len(images), told)
        if parts.latent:
            shape = (parts.latent_channels, *(side // 2**parts.halvings for side in shape[1:]))
        else:
            self.data.tensors["image"] = images.image
        features = None if self.text is None else self.text.features
        pooled = self.text is not None and config.backbone == "dit"  # the encoder is causal: its last id has read all
        self.subject = Subject(shape, classes, features, parts.latent, pooled)
        network: nn.Module = build(lambda: network_of(config, self.subject), streams.generator(seed, "weights"))
        objective: Objective = objective_of(config, self.subject, parts.dropout, parts.weight)
        if parts.latent:
            objective = Latent(objective)
        if self.text is not None:
            network = Prompted(network, self.text.encoder)
            objective = Captioned(objective, self.text.null, parts.dropout)
        self.second = Trainer(network, objective, self.data, train, seed=seed, accelerator=accelerator)

    @property
    def before(self) -> int:
        """Updates before the denoiser's."""
        return 0 if self.first is None else self.first.config.steps

    @property
    def step(self) -> int:
        """Updates done."""
        return self.second.step + (0 if self.first is None else self.first.step)

    @property
    def total(self) -> int:
        """Updates in all."""
        return self.before + self.second.config.steps

    def run(self, until: int | None = None) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Update until `until` (by default `total`) and yield (step, mean metrics) after each update."""
        end = self.total if until is None else until
        if self.first is not None:
            for step, said in _played(self.first, min(end, self.before)):
                yield step, {f"autoencoder_{name}": value for name, value in said.items()}
        if end > self.before:
            self._encode()
            for step, said in self.second.run(end - self.before):
                yield self.before + step, said

    def result(self) -> Pipeline:
        """What was trained, ready to draw from."""
        network, words = self.second.result.eval(), self.text
        if isinstance(network, Prompted) and words is not None:
            encoder: Any = network.encoder
            network, words = network.denoiser, Text(words.tokenizer, encoder)
        latents = None if self.first is None else Latents(_autoencoder(self.first).eval())
        return Pipeline(self.config, self.subject, network, words, latents)

    def state_dict(self) -> dict[str, Any]:
        """A tree of tensors and numbers (see `lab.tree`); together with config and seed it is the whole run."""
        first = {} if self.first is None else {"first": self.first.state_dict()}
        return {**first, "second": self.second.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        if self.first is not None:
            self.first.load_state_dict(state["first"])
            for name in ("mean", "logvar"):  # of the autoencoder before
                self.data.tensors.pop(name, None)
        self.second.load_state_dict(state["second"])

    def _encode(self) -> None:
        """The latents of all images, once; the autoencoder's weights are scaled before the first of them is learned."""
        if self.first is None or "mean" in self.data.tensors:
            return
        coder = _autoencoder(self.first).eval()
        if self.second.step == 0:
            standardise(coder, statistics(coder, self.images.image))
        self.data.tensors |= encoded(coder, self.images.image)


class _Waiting:
    """Samples by index (`generative.train.Data`), of which some tensors are known only later."""

    def __init__(self, length: int, tensors: Batch) -> None:
        self.length, self.tensors = length, dict(tensors)

    def __len__(self) -> int:
        return self.length

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        return {name: tensor[index] for name, tensor in self.tensors.items()}


def _first(
    parts: PartsConfig,
    shape: tuple[int, int, int],
    images: Images,
    train: TrainConfig,
    seed: int,
    accelerator: Accelerator,
) -> Trainer:
    """The autoencoder's."""
    channels, height, width = shape
    levels = tuple(min(2**level, 4) for level in range(parts.halvings + 1))  # as in Rombach et al. 2022, table 14
    size = AutoencoderConfig(channels, height, parts.latent_channels, parts.autoencoder_width, levels)
    if height != width:
        raise ValueError(f"images are {width} x {height}; latents are of square ones")
    draws = streams.generator(seed, "autoencoder")
    coder = Coder(autoencoder(size, draws))
    model: nn.Module = coder
    alone = Reconstruction(kl=parts.kl)
    objective: Objective = alone
    if parts.adversary:
        patches = build(lambda: PatchDiscriminator(channels), draws)
        model, objective = Players(coder, patches), Adversarial(alone, parts.adversary)
    accumulate = _equal(CODER.batch_size, train.accumulate, accelerator.num_processes)
    config = dataclasses.replace(CODER, steps=parts.autoencoder_steps, precision=train.precision, accumulate=accumulate)
    own = streams.derive(seed, "autoencoder")
    return Trainer(
        model, objective, _Waiting(len(images), {"image": images.image}), config, seed=own, accelerator=accelerator
    )


def _equal(size: int, most: int, ranks: int) -> int:
    """The most equal parts, `most` or fewer, that each process's share of a batch of `size` falls into."""
    return max((parts for parts in range(2, min(most, size) + 1) if size % (ranks * parts) == 0), default=1)


def _played(trainer: Trainer, until: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The updates of a trainer of `_first`; an adversary joins after half of all there are."""
    alone = trainer.config.steps // 2
    for end, joined in ((min(alone, until), False), (until, True)):
        if isinstance(trainer.objective, Adversarial):
            trainer.objective = dataclasses.replace(trainer.objective, joined=joined)
        yield from trainer.run(end)


def _autoencoder(trainer: Trainer) -> Any:
    """What a trainer of `_first` made."""
    model: Any = trainer.result
    return (model.coder if isinstance(model, Players) else model).autoencoder
