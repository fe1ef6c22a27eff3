"""The parts of a diffusers pipeline as the engine and its requests take them (the text encoder: see `text`).

    engine = Engine(FirstChannels(network, 4), (4, 32, 32), ...)
    images = Latents(autoencoder).decode(engine.sample(requests))

Key: N images, c h w a latent, C H W an image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

PIXELS = 2**20
"""Of all images that the autoencoder is shown in one call: sixteen of 256 x 256."""


class FirstChannels(nn.Module):
    """A network that says more than the sample, without the rest.

    Of a network with a learned variance (Nichol & Dhariwal 2021, sec. 3.1) the first half of the channels is what the
    others say, and solvers are told that half alone, as in diffusers' `DiTPipeline`.

    Args:
        network: answers as the engine asks.
        channels: how many of its answer to keep.
    """

    def __init__(self, network: nn.Module, channels: int) -> None:
        super().__init__()
        self.network, self.channels = network, channels

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, **conditions: Tensor) -> Tensor:
        answer: Tensor = self.network(x, t, label, **conditions)
        return answer[:, : self.channels]


@dataclass(frozen=True, eq=False)
class Latents:
    """An autoencoder between images in [-1, 1] and latents of about unit variance: latent = scale code.

    The scale is the `scaling_factor` of its configuration. Its `shift_factor` is read by none of the pipelines in
    `stock`, nor here: whoever has one puts it into the weights.
    """

    autoencoder: Any
    """diffusers' AutoencoderKL or VQModel."""

    @classmethod
    def load(cls, folder: Path) -> Latents:
        """An AutoencoderKL that `save_pretrained` wrote. Raises OSError where a file is missing."""
        from diffusers import AutoencoderKL  # seconds to load

        return cls(AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval())

    @property
    def scale(self) -> float:
        """Latents in units of codes."""
        return float(self.autoencoder.config.scaling_factor)

    def decode(self, latents: Float[Tensor, "N c h w"]) -> Float[Tensor, "N C H W"]:
        """Images in [-1, 1], cut off there; as many at a time as `PIXELS` allows."""
        side = 2 ** (len(self.autoencoder.config.block_out_channels) - 1)

        def decoded(part: Tensor) -> Tensor:
            return self.autoencoder.decode(part / self.scale).sample.clamp(-1, 1)

        return _in_parts(decoded, latents, pixels=side**2 * latents.shape[-2] * latents.shape[-1])

    def encode(
        self, images: Float[Tensor, "N C H W"], noise: Float[Tensor, "N c h w"] | None = None
    ) -> Float[Tensor, "N c h w"]:
        """Latents of images in [-1, 1]; as many at a time as `PIXELS` allows.

        Args:
            images: in [-1, 1].
            noise: standard normal, to draw from the autoencoder's distribution of codes, as diffusers' img2img does;
                None for the mean.

        Raises:
            ValueError: for noise where the autoencoder has no distribution (a VQModel).
        """

        def encoded(part: Tensor) -> Tensor:
            found = self.autoencoder.encode(part)
            if not hasattr(found, "latent_dist"):
                return found.latents
            return torch.cat([found.latent_dist.mean, found.latent_dist.std], dim=1)

        codes = _in_parts(encoded, images, pixels=images.shape[-2] * images.shape[-1])
        channels = self.autoencoder.config.latent_channels
        mean, deviation = codes[:, :channels], codes[:, channels:]
        if noise is None:
            return self.scale * mean
        if not deviation.shape[1]:
            raise ValueError("the autoencoder has no distribution of codes to draw from; expected noise=None")
        return self.scale * (mean + deviation * noise)


def _in_parts(change: Callable[[Tensor], Tensor], batch: Tensor, pixels: int) -> Tensor:
    """`change(batch)`, by as many at a time as `PIXELS` allows, each of so many pixels."""
    with torch.no_grad():
        return torch.cat([change(part) for part in torch.split(batch, max(1, PIXELS // pixels))])
