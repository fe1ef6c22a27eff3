"""What a denoiser is trained for: undo a random amount of noise.

    t ~ uniform over the T timesteps,  eps ~ N(0, I),  x_t = alpha_t x_0 + sigma_t eps
    loss = mean over pixels of (network(x_t, t, label) - target)^2

The weight is uniform *in the network's own output*: for eps this is L_simple (Ho et al. 2020, eq. 14); in terms
of the error of x_0 it weighs SNR for eps, SNR + 1 for v, and 1 for x0 (Salimans & Ho 2022, sec. 4).

For classifier-free guidance a share of the samples is shown the null label instead (Ho & Salimans 2022, alg. 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from generative.diffusion.denoiser import Prediction, target
from generative.diffusion.schedule import NoiseSchedule
from generative.train import Batch, Losses
from lab import streams

TIME, DROP, NOISE = 0, 1, 2  # where in a sample's stream its draws stand; the noise takes all from NOISE on


@dataclass(frozen=True, eq=False)
class DDPM:
    """The denoising objective over batches {"image": [B, *shape] in [-1, 1], "label": [B]}; "label" may be absent.

    Args:
        schedule: the noise of each timestep.
        prediction: what the network says: "eps", "x0" or "v".
        null: the label that stands for none. Needed with labels.
        dropout: share of the samples shown the null label. Larger helps guidance, and costs fidelity to the class.
    """

    schedule: NoiseSchedule
    prediction: Prediction
    null: int | None = None
    dropout: float = 0.1

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """One squared error for each sample, the mean over its pixels."""
        x0 = batch["image"]
        t = (streams.uniform(key, TIME) * self.schedule.steps).long()  # [B], in 0 .. T-1
        pixel = torch.arange(x0[0].numel(), device=x0.device)
        eps = streams.normal(key[:, None], NOISE + pixel).view_as(x0).to(x0.dtype)  # [B, *shape]
        column = (-1, *[1] * (x0.ndim - 1))
        alpha = self.schedule.alpha(t).view(column).to(x0.dtype)  # [B, 1, ..., 1]
        sigma = self.schedule.sigma(t).view(column).to(x0.dtype)
        output = model(alpha * x0 + sigma * eps, t.to(x0.dtype), self._label(batch, key))
        error = output - target(self.prediction, alpha, sigma, x0, eps)
        return Losses(error.square().flatten(1).mean(1))

    def _label(self, batch: Batch, key: Int64[Tensor, "B"]) -> Int64[Tensor, "B"] | None:
        if self.null is None:
            return None
        return torch.where(streams.uniform(key, DROP) < self.dropout, self.null, batch["label"])
