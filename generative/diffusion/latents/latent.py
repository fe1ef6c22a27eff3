"""Latents: encode images once, and train on what a denoiser wants to see, mean 0 and deviation 1 in each channel.

    standardise(autoencoder, statistics(autoencoder, images))     # once, after it was trained
    data = TensorData(encoded(autoencoder, images))               # {"mean", "logvar"}: small, and computed once
    Trainer(denoiser, Latent(DDPM(schedule, "v")), data, ...)     # draws a latent of each image in every step
    images = decode(autoencoder, sampled)

Rombach et al. 2022 (appendix G) divide all latents by one deviation, diffusers' `scaling_factor`; later models have a
`shift_factor`, or both for each channel, which `StableDiffusionPipeline` and `DiTPipeline` do not read. Here the
statistics of each channel go into the 1x1 convolutions at the two ends of the latents, where they are exact, so that
every stock pipeline follows them: `scaling_factor` is 1.

Key: N images of C x H x W, latents of L x h x w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int64
from torch import Tensor, nn

from generative.diffusion.latents.autoencoder import noise
from generative.train import Batch, Losses, Objective
from lab import streams

OWN = -1  # the draw of a sample's stream that begins the stream of its latent; the objective's own begin at 0


class Statistics(NamedTuple):
    """Of latents drawn from the posteriors of a data set, over images and places."""

    mean: Float[Tensor, "L"]
    deviation: Float[Tensor, "L"]


@torch.no_grad()
def encoded(autoencoder: AutoencoderKL, images: Float[Tensor, "N C H W"], batch: int = 64) -> Batch:
    """{"mean", "logvar": [N, L, h, w]}: the posterior of each image, `batch` at a time, on the images' device."""
    parts = [_posterior(autoencoder, part) for part in _parts(images, batch)]
    return {name: torch.cat([part[name] for part in parts]).to(images.device) for name in ("mean", "logvar")}


@torch.no_grad()
def decode(autoencoder: AutoencoderKL, latents: Float[Tensor, "N L h w"], batch: int = 64) -> Float[Tensor, "N C H W"]:
    """The images of latents, `batch` at a time, on the latents' device."""
    device = next(autoencoder.parameters()).device
    return torch.cat([autoencoder.decode(part.to(device)).sample for part in _parts(latents, batch)]).to(latents.device)


def statistics(autoencoder: AutoencoderKL, images: Float[Tensor, "N C H W"], batch: int = 64) -> Statistics:
    """Mean and deviation of every channel of the latents of these images, in float64 and without drawing any.

    var z = var mean + mean var, the second from what the encoder is unsure of. It is the whole variance, of a latent
    drawn from the posterior, as the denoiser will meet it.
    """
    found = encoded(autoencoder, images, batch)
    mean, variance = found["mean"].double(), found["logvar"].double().exp()
    over = (0, 2, 3)
    return Statistics(mean.mean(over), (mean.var(over, correction=0) + variance.mean(over)).sqrt())


@torch.no_grad()
def standardise(autoencoder: AutoencoderKL, of: Statistics) -> None:
    """Change the weights so that its latents are (z - mean) / deviation, and decode to what z decoded to.

    With z' = (z - m) / s: the encoder's last convolution gives (W z - m) / s and ln var - 2 ln s, the decoder's first
    one reads s z' + m. Exact but for rounding, and for posteriors narrower than e^-15, which diffusers widens to that.

    Raises:
        ValueError: where a channel of the latents is constant, or the autoencoder has no such convolutions.
    """
    ends = autoencoder.quant_conv, autoencoder.post_quant_conv
    if not all(isinstance(end, nn.Conv2d) for end in ends):
        raise ValueError("this autoencoder has no 1x1 convolutions at its latents: expected use_quant_conv=True")
    if not bool((of.deviation > 0).all()):
        raise ValueError(f"the deviations of the latents are {of.deviation.tolist()}; expected positive numbers")
    m, s = (value.to(ends[0].weight) for value in of)
    one = torch.ones_like(s)
    ends[0].weight.mul_(torch.cat([1 / s, one])[:, None, None, None])
    ends[0].bias.copy_(torch.cat([(ends[0].bias[: len(m)] - m) / s, ends[0].bias[len(m) :] - 2 * s.log()]))
    ends[1].bias.add_(ends[1].weight[:, :, 0, 0] @ m)
    ends[1].weight.mul_(s[None, :, None, None])


@dataclass(frozen=True, eq=False)
class Latent:
    """An objective on latents, over batches {"mean", "logvar": [B, L, h, w]} and whatever else `objective` reads.

    Args:
        objective: of images; it is given a latent of each as its "image", drawn from the posterior by its key.
    """

    objective: Objective

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """The objective's own losses."""
        mean, deviation = batch["mean"], (0.5 * batch["logvar"]).exp()
        latent = mean + deviation * noise(streams.bits(key, OWN), mean)
        return self.objective.loss(model, {**batch, "image": latent}, key)


def _parts(tensor: Tensor, size: int) -> list[Tensor]:
    return [tensor[i : i + size] for i in range(0, len(tensor), size)]


def _posterior(autoencoder: AutoencoderKL, images: Float[Tensor, "B C H W"]) -> Batch:
    posterior = autoencoder.encode(images.to(next(autoencoder.parameters()).device)).latent_dist
    return {"mean": posterior.mean, "logvar": posterior.logvar}
