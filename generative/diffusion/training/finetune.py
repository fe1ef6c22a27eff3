"""A loaded model trained further by low-rank adapters, on other images of its size.

    tuning = FineTuning(open_folder(path), Lora(rank=8), images, TrainConfig(steps=500), seed=0)
    for step, metrics in tuning.run():
        ...                                # the loop is at rest at every yield, as `generative.train` has it
    tuned = tuning.result()                # a model like the base, the adapters folded in

What the base was trained for is what the adapters are trained for: noise and prediction are those of a `Pipeline`, or
of the scheduler of a `Stock`. It is told what it knows: labels, captions, or nothing. Autoencoder and text encoder stay
as they are, so that images and captions are encoded once, before the first update.

Source: Hu et al. 2022 (see `lora`), for denoisers as in diffusers' `train_text_to_image_lora`. Departures from that
recipe: for classifier-free guidance a share of the samples is still shown the null label or the empty prompt (Ho &
Salimans 2022, alg. 1); the latents of an image are drawn anew in every step, as there, but those of a VQModel are what
its encoder says, before they are rounded to its book. Of a DiT with a learned variance that diffusers wrote, the mean
alone is trained; its variances follow as the layers that both share change.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from generative.diffusion.data.split import Images
from generative.diffusion.latents.latent import Latent, encoded
from generative.diffusion.noise.denoiser import Prediction
from generative.diffusion.noise.schedule import from_alpha_bar
from generative.diffusion.parts import Parts
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.stock.adapters import PIXELS
from generative.diffusion.stock.stock import Stock
from generative.diffusion.training.objective import DDPM, DROP
from generative.diffusion.training.weight import Weight
from generative.lora import Lora, adapt, merge
from generative.train import Batch, Losses, Objective, TensorData, TrainConfig, Trainer
from lab import streams

SAYS: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
"""Our name of what a network says, by diffusers' `prediction_type`."""


class FineTuning:
    """Trainer of a model's adapters; with the base, what it holds is in `state_dict`.

    Args:
        base: a `Pipeline` or a `Stock`; its parts are moved to the device, and stay as they are otherwise.
        lora: which layers of the denoiser learn, and by how many weights.
        images: to learn from, of the size and the channels that the base draws; with labels or captions for a base that
            is told such.
        train: length, rate and averaging. Its precision is that of the denoiser.
        dropout: share of the samples that are told nothing. Larger helps guidance, and costs obedience.
        weight: how much each noise level counts (see `weight`).
        seed: the root of every draw.
        accelerator: device, precision and processes.

    Raises:
        ValueError: where images and base do not fit each other, the base has no layer to adapt, or its scheduler is
            for other noise than that of a table of betas.
    """

    def __init__(
        self,
        base: Parts,
        lora: Lora,
        images: Images,
        train: TrainConfig,
        *,
        dropout: float = 0.1,
        weight: Weight = "uniform",
        seed: int,
        accelerator: Accelerator | None = None,
    ) -> None:
        accelerator = accelerator or Accelerator()
        objective, told = _objective(base, dropout, weight), _told(base, images)
        network = adapt(copy.deepcopy(base.network), lora, streams.generator(seed, "adapters"))
        self.base = base.to(accelerator.device)
        if base.text is not None:
            objective = Read(objective, _contexts(base, images), dropout)
        data = _samples(base, images.image)
        self.trainer = Trainer(
            network,
            Latent(objective) if "mean" in data else objective,
            TensorData({**data, **told}),
            train,
            seed=seed,
            accelerator=accelerator,
        )

    @property
    def step(self) -> int:
        """Updates done."""
        return self.trainer.step

    @property
    def total(self) -> int:
        """Updates in all."""
        return self.trainer.config.steps

    def run(self, until: int | None = None) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Update until `until` (by default `total`) and yield (step, mean metrics) after each update."""
        return self.trainer.run(until)

    @property
    def adapted(self) -> nn.Module:
        """The denoiser with its adapters, or their moving average where one is kept."""
        return self.trainer.result.eval()

    def result(self) -> Parts:
        """The base with the adapters folded into a denoiser of its own; the other parts are the base's."""
        return self.base.using(merge(self.adapted).requires_grad_(False))

    def state_dict(self) -> dict[str, Any]:
        """A tree of tensors and numbers (see `lab.tree`), without the weights that are the base's."""
        return self.trainer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, with the same base."""
        self.trainer.load_state_dict(state)


@dataclass(frozen=True, eq=False)
class Read:
    """An objective for denoisers whose prompts were read before: batches {"image", "words": int64 [B], ...}.

    Args:
        objective: made without labels; it calls its model as (x, t, None), which is told its context beside.
        contexts: what each prompt is to the denoiser, the empty one first; "words" are rows of it.
        dropout: share of the samples shown the empty prompt.
    """

    objective: Objective
    contexts: Float[Tensor, "M S F"]
    dropout: float

    def loss(self, model: nn.Module, batch: Batch, key: Tensor) -> Losses:
        """The objective's own losses of a model that is told the contexts."""
        dropped = streams.uniform(key, DROP) < self.dropout  # [B]: the draw that an objective with labels takes
        return self.objective.loss(_Told(model, self.contexts[torch.where(dropped, 0, batch["words"])]), batch, key)


class _Told(nn.Module):
    """A model that is called without label, and told the contexts of this batch."""

    def __init__(self, model: nn.Module, context: Tensor) -> None:
        super().__init__()
        self.model, self.context = model, context

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        said: Tensor = self.model(x, t, label, context=self.context)
        return said


def _objective(base: Parts, dropout: float, weight: Weight) -> Objective:
    """What the base was trained for; prompts are told by `Read`."""
    if isinstance(base, Pipeline):
        return base.objective(dropout, weight)
    if not isinstance(base, Stock):
        raise ValueError(f"the base is a {type(base).__name__}; expected a Pipeline or a Stock")
    scheduler = base.scheduler
    shares, says = getattr(scheduler, "alphas_cumprod", None), SAYS.get(str(scheduler.config.get("prediction_type")))
    if shares is None or says is None:
        name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type")
        raise ValueError(
            f"its scheduler is a {name} with prediction_type {kind!r}; expected one with betas that predicts "
            f"{', '.join(SAYS)}"
        )
    return DDPM(from_alpha_bar(shares.double()), says, null=base.classes, dropout=dropout, weight=weight)


def _told(base: Parts, images: Images) -> Batch:
    """What each sample is told, where the base is told anything."""
    found, wanted = tuple(images.image.shape[1:]), base.image
    if found != wanted:
        raise ValueError(f"images are {_size(found)}; the base draws {_size(wanted)}")
    if base.text is not None and base.classes is not None:
        raise ValueError("the base is told labels and prompts at once; expected one of them, or none")
    if base.text is not None:
        if images.captions is None:
            raise ValueError("the base reads prompts; expected images with captions")
        row = {caption: i for i, caption in enumerate(dict.fromkeys(images.captions), 1)}
        return {"words": torch.tensor([row[caption] for caption in images.captions])}
    if base.classes is None:
        return {}
    if images.label is None:
        raise ValueError(f"the base draws by class, of {base.classes}; expected images with labels")
    if int(images.label.max()) >= base.classes:
        raise ValueError(f"labels go up to {int(images.label.max())}; the base knows {base.classes} classes")
    return {"label": images.label}


def _contexts(base: Parts, images: Images) -> Float[Tensor, "M S F"]:
    """What the empty prompt, and each of the captions once, are to the denoiser (`_told` has numbered them)."""
    prompts = ["", *dict.fromkeys(images.captions or ())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of each caption that is too long, and is cut as all of them are in training
        return torch.stack([condition["context"] for condition in base.conditions(prompts)])


def _samples(base: Parts, images: Float[Tensor, "N C H W"]) -> Batch:
    """What the denoiser is to learn: the images, or the distribution of the latents of each."""
    if base.latents is None:
        return {"image": images}
    autoencoder, scale = base.latents.autoencoder.eval(), base.latents.scale
    if hasattr(autoencoder, "quantize"):  # a VQModel, whose codes have no distribution
        device = next(autoencoder.parameters()).device
        return {"image": base.encode(images.to(device)).to(images.device)}
    found = encoded(autoencoder, images, max(1, PIXELS // images[0, 0].numel()))
    return {"mean": scale * found["mean"], "logvar": found["logvar"] + 2 * math.log(scale)}


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels of {channels} channel{'s' * (channels > 1)}"
