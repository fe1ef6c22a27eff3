"""A small variational autoencoder, in the form that every latent diffusion pipeline of diffusers reads.

    q(z | x) = N(mean(x), deviation(x)^2),   z = mean + deviation eps,   x^ = decode(z)
    loss = mean over values of (x - x^)^2  +  weight KL(q || N(0, I)) / values

The network is diffusers' `AutoencoderKL` itself; here are its size, its weights and what it is trained for. `adversary`
adds a player that tells reconstructions from data, and `latent` scales what the encoder says.

Sources: Kingma & Welling 2014, "Auto-encoding variational Bayes", eq. 10 and appendix B; Rombach et al. 2022,
"High-resolution image synthesis with latent diffusion models", sec. 3.1 and appendix G. It departs from the latter:
the error is squared, and there is no perceptual distance, which needs a network trained on other images.

Key: B batch, C x H x W values of an image, L x h x w of a latent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int64
from torch import Tensor, nn

from backbones.initialise import build
from generative.train import Batch, Losses
from lab import streams

ErrorName = Literal["l1", "l2"]
ERRORS = {"l1": torch.abs, "l2": torch.square}


@dataclass(frozen=True)
class AutoencoderConfig:
    """The size of an autoencoder."""

    channels: int = 3
    """Of an image."""
    size: int = 16
    """Height and width of the images; each level after the first halves it."""
    latent_channels: int = 4
    """Channels of a latent. More keep more of the image, and leave the denoiser more to do."""
    width: int = 32
    """Channels of the first level. Larger fits finer detail and costs its square in time."""
    multipliers: tuple[int, ...] = (1, 2)
    """Channels of each level in units of the width; L levels make latents 2^(L-1) times smaller in height and width."""
    blocks: int = 1
    """Residual blocks a level of the encoder; the decoder has one more. More fit more, at a proportional cost."""
    attention: bool = False
    """Whether the smallest pictures' pixels attend to each other. It helps where distant parts belong together."""


def autoencoder(config: AutoencoderConfig, generator: torch.Generator) -> AutoencoderKL:
    """An untrained one, its weights drawn from `generator`, so that colours pass through it from the first step.

    torch's own weights shrink the variance to a third in each of some ten layers that nothing normalises, and the
    posterior's noise of deviation 1 drowns what is left: small scenes then stay grey for hundreds of steps. So every
    layer keeps the variance (LeCun et al. 1998, sec. 4.6), residual blocks start as the identity (Goyal et al. 2017,
    sec. 5.1), and the posterior's deviation starts at e^-3.

    Raises:
        ValueError: where the images cannot be halved so often.
    """
    levels, shrink = len(config.multipliers), 2 ** (len(config.multipliers) - 1)
    if config.size % shrink:
        raise ValueError(
            f"images of size {config.size} cannot be halved {levels - 1} times: expected a multiple of {shrink}"
        )
    widths = [config.width * m for m in config.multipliers]
    network = build(
        lambda: AutoencoderKL(
            in_channels=config.channels,
            out_channels=config.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(widths),
            layers_per_block=config.blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=groups(math.gcd(*widths)),
            sample_size=config.size,
            scaling_factor=1.0,  # `latent.standardise` scales the weights instead
            mid_block_add_attention=config.attention,
        ),
        generator,
    )
    with torch.no_grad():
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(0 if name.endswith("conv2") else math.sqrt(3))  # uniform in +-1/sqrt(fan_in) before
                if layer.bias is not None:
                    layer.bias.zero_()
        network.quant_conv.bias[config.latent_channels :] = -6  # of ln deviation^2
    return network


def groups(channels: int) -> int:
    """Of a normalisation: 8, or fewer so that they divide the channels and hold at least four, or 1."""
    return max(n for n in (1, 2, 4, 8) if n == 1 or (channels % n == 0 and channels >= 4 * n))


class Coded(NamedTuple):
    """Images there and back: what the encoder said of them, and what the decoder made of a draw from that."""

    mean: Float[Tensor, "B L h w"]
    logvar: Float[Tensor, "B L h w"]
    image: Float[Tensor, "B C H W"]


class Coder(nn.Module):
    """What is trained: an autoencoder that is given the noise of its posterior.

    Args:
        autoencoder: diffusers' own.
    """

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, image: Float[Tensor, "B C H W"], key: Int64[Tensor, "B"]) -> Coded:
        """Encode, draw with the noise of each image's key, decode."""
        posterior = self.autoencoder.encode(image).latent_dist
        z = posterior.mean + posterior.std * noise(key, posterior.mean)
        return Coded(posterior.mean, posterior.logvar, self.autoencoder.decode(z).sample)


@dataclass(frozen=True)
class Reconstruction:
    """The objective of a `Coder` over batches {"image": [B, C, H, W] in [-1, 1]}.

    Args:
        error: of a value: absolute, as in Rombach et al., or squared. Small scenes need the latter: most of their
            values are ground, and the median of what is possible stays there for long.
        kl: weight of the divergence, in nats a value of the image. Larger makes the latents smoother and nearer to
            N(0, I), and the images blurrier; 1 is the evidence bound of a decoder with unit Laplace or Gaussian noise,
            up to the scale of the error. The default is that of Rombach et al. 2022.
    """

    error: ErrorName = "l2"
    kl: float = 1e-6

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """The error of each image and the weighted divergence of its posterior."""
        return self.of(batch["image"], model(batch["image"], key))

    def of(self, image: Float[Tensor, "B C H W"], coded: Coded) -> Losses:
        """The loss of images that have been coded; logs both parts, the divergence in nats an image."""
        error = ERRORS[self.error](image - coded.image).flatten(1).mean(1)
        divergence = kl(coded.mean, coded.logvar)
        value = error + self.kl * divergence / image[0].numel()
        return Losses(value, {"error": error, "kl": divergence})


def kl(mean: Float[Tensor, "B *shape"], logvar: Float[Tensor, "B *shape"]) -> Float[Tensor, "B"]:
    """KL(N(mean, exp(logvar)) || N(0, I)) in nats, summed over all but the batch (Kingma & Welling, appendix B)."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)


def noise(key: Int64[Tensor, "B"], like: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *shape"]:
    """N(0, I) for each sample from its own key."""
    place = torch.arange(like[0].numel(), device=like.device)
    return streams.normal(key[:, None], place).view_as(like).to(like.dtype)
