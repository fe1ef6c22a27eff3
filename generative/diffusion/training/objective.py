"""What a denoiser is trained for: undo a random amount of noise.

    u ~ uniform(0, 1),  (alpha, sigma) the schedule's level at u,  eps ~ N(0, I),  x = alpha x_0 + sigma eps
    loss = weight times the mean over pixels of (network(c_in x, told, label) - target)^2

With T timesteps, eps and the uniform weight this is L_simple (Ho et al. 2020, eq. 14); with `continuous.Flow` and
"flow" conditional flow matching (Esser et al. 2024, eq. 13); with `continuous.EDM` and "edm" eq. 8 of Karras et al.
2022. What else the weight may be is in `weight`.

For classifier-free guidance a share of the samples is shown the null label instead (Ho & Salimans 2022, alg. 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from generative.diffusion.noise.denoiser import Prediction, column, input_scale, inverse, target, x0_coefficients
from generative.diffusion.noise.schedule import Level, Schedule
from generative.diffusion.training.weight import Weight, on_output
from generative.train import Batch, Losses
from lab import streams

TIME, DROP, NOISE = 0, 1, 2  # where in a sample's stream its draws stand; the noise takes all from NOISE on
HALF = 2.0**-25  # half of the distance between two values of `streams.uniform`


@dataclass(frozen=True, eq=False)
class Noised:
    """A batch with its noise."""

    x0: Float[Tensor, "B *shape"]
    eps: Float[Tensor, "B *shape"]
    level: Level
    label: Int64[Tensor, "B"] | None

    @property
    def x(self) -> Float[Tensor, "B *shape"]:
        """alpha x_0 + sigma eps."""
        return column(self.level.alpha, self.x0) * self.x0 + column(self.level.sigma, self.x0) * self.eps


@dataclass(frozen=True, eq=False)
class DDPM:
    """The denoising objective over batches {"image": [B, *shape] in [-1, 1], "label": [B]}; "label" may be absent.

    Args:
        schedule: which levels there are, and how often each is drawn.
        prediction: what the network says (see `denoiser`).
        null: the label that stands for none. Needed with labels.
        dropout: share of the samples shown the null label. Larger helps guidance, and costs fidelity to the class.
        weight: how much each level counts (see `weight`).
    """

    schedule: Schedule
    prediction: Prediction
    null: int | None = None
    dropout: float = 0.1
    weight: Weight = "uniform"

    def __post_init__(self) -> None:
        """Raises ValueError where the prediction determines no data at the noisiest level."""
        noisiest = self.schedule.draw(torch.tensor([1 - HALF], dtype=torch.float64))
        x0_coefficients(self.prediction, noisiest.alpha, noisiest.sigma)

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """One weighted squared error for each sample, the mean over its pixels."""
        noised = self.noised(batch, key)
        return Losses(self.error(noised, self.ask(model, noised)))

    def noised(self, batch: Batch, key: Int64[Tensor, "B"]) -> Noised:
        """The batch with a level and a noise for each sample, drawn from its key."""
        x0 = batch["image"]
        # the middle of the 2^24 values' intervals: no draw is at an infinite level
        level = self.schedule.draw(streams.uniform(key, TIME).double() + HALF)
        pixel = torch.arange(x0[0].numel(), device=x0.device)
        eps = streams.normal(key[:, None], NOISE + pixel).view_as(x0).to(x0.dtype)  # [B, *shape]
        return Noised(x0, eps, level, self._label(batch, key))

    def ask(
        self, model: nn.Module, noised: Noised, beside: Float[Tensor, "B *beside"] | None = None
    ) -> Float[Tensor, "B *output"]:
        """What the model says; `beside` are further channels that it is shown."""
        x = column(input_scale(self.prediction, noised.level.alpha, noised.level.sigma), noised.x0) * noised.x
        seen = x if beside is None else torch.cat([x, beside], dim=1)
        said = model(seen, noised.level.told.to(x.dtype), noised.label)
        return said.to(x.dtype)  # under autocast it is rougher, and what is made of it need not be

    def estimate(self, noised: Noised, output: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
        """x_0 as it follows from an answer."""
        p, q = inverse(self.prediction, noised.level.alpha, noised.level.sigma)
        return column(p, output) * noised.x + column(q, output) * output

    def error(self, noised: Noised, output: Float[Tensor, "B *shape"]) -> Float[Tensor, "B"]:
        """The weighted squared error of an answer."""
        alpha, sigma = (column(value, noised.x0) for value in noised.level[:2])  # [B, 1, ..., 1]
        error = output - target(self.prediction, alpha, sigma, noised.x0, noised.eps)
        return on_output(self.weight, self.prediction, noised.level).to(error.dtype) * error.square().flatten(1).mean(1)

    def _label(self, batch: Batch, key: Int64[Tensor, "B"]) -> Int64[Tensor, "B"] | None:
        if self.null is None:
            return None
        return torch.where(streams.uniform(key, DROP) < self.dropout, self.null, batch["label"])
