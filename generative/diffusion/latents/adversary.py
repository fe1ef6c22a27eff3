"""A second player that tells reconstructions from data, patch by patch, so that blur costs more than its error.

    D maximises  min(0, D(x) - 1) + min(0, -1 - D(x^)),      the autoencoder maximises  D(x^)

Both learn at once, in one loop with one optimiser: the loss is the sum of the two players' losses, and each is blind to
the other's weights. The autoencoder meets a discriminator whose weights are constants; the discriminator meets images
that are constants. So the gradient of the sum is, weight by weight, that of the player who owns it: simultaneous
gradient descent.

Sources: Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", sec. 3.2.2 and appendix
6.1.2 (the patches); Lim & Ye 2017, "Geometric GAN", eq. 9 and 10 (hinge); Esser et al. 2021, "Taming transformers for
high-resolution image synthesis", sec. 3.1 and appendix B (for autoencoders, started late).

Departures. The weight of the adversarial loss is constant, where Esser et al. eq. 7 measure the two gradients at the
last layer: that makes the loss of a sample depend on its batch. The discriminator has no normalisation, where Isola et
al. normalise over the batch, for the same reason. Both players share one learning rate, one momentum and one clipping
of the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from backbones.shape import wrong
from generative.diffusion.latents.autoencoder import Coded, Coder, Reconstruction
from generative.train import Batch, Losses


class PatchDiscriminator(nn.Module):
    """Convolutions of 4 x 4 with leaky ReLUs: one verdict for each patch, positive for data.

    With one halving a verdict sees 16 x 16 pixels, with two 34, with three 70 (Isola et al. 2017, appendix 6.1.2).

    Args:
        channels: C of an image.
        width: channels of the first layer; they double with every further one, up to eight times as many.
        halvings: layers of stride 2; one of stride 1 follows.
    """

    def __init__(self, channels: int, width: int = 32, halvings: int = 1) -> None:
        super().__init__()
        self.channels, self.smallest = channels, 3 * 2**halvings
        layers: list[nn.Module] = []
        for i in range(halvings + 1):
            out = width * min(2**i, 8)
            layers += [nn.Conv2d(channels, out, 4, stride=2 if i < halvings else 1, padding=1), nn.LeakyReLU(0.2)]
            channels = out
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, padding=1))

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w"]:
        """Verdicts on the patches. Raises ShapeError for images of other channels, or smaller than a patch needs."""
        if image.shape[1] != self.channels or min(image.shape[2:]) < self.smallest:
            raise wrong(
                "PatchDiscriminator: image", image, f"[B, {self.channels}, {self.smallest} ..., {self.smallest} ...]"
            )
        return self.layers(image)[:, 0]


class Played(NamedTuple):
    """One round: the images there and back, and the verdicts."""

    coded: Coded
    real: Float[Tensor, "B h w"]
    """On the data: moves the discriminator."""
    fake: Float[Tensor, "B h w"]
    """On the reconstructions: moves the discriminator."""
    passed: Float[Tensor, "B h w"]
    """On the reconstructions: moves the autoencoder. The numbers are those of `fake`."""


class Players(nn.Module):
    """Autoencoder and discriminator in one module.

    Args:
        coder: the autoencoder.
        discriminator: its adversary.
    """

    def __init__(self, coder: Coder, discriminator: nn.Module) -> None:
        super().__init__()
        self.coder, self.discriminator = coder, discriminator

    def forward(self, image: Float[Tensor, "B C H W"], key: Int64[Tensor, "B"]) -> Played:
        """One round."""
        coded = self.coder(image, key)
        constant = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        passed = functional_call(self.discriminator, constant, (coded.image,))
        real, fake = self.discriminator(image), self.discriminator(coded.image.detach())
        return Played(coded, real, fake, passed)


@dataclass(frozen=True)
class Adversarial:
    """The objective of `Players` over batches {"image": [B, C, H, W] in [-1, 1]}.

    Args:
        reconstruction: what the autoencoder is trained for besides.
        weight: of the adversary in the autoencoder's loss. Larger gives sharper images that are less like the data's
            own; its unit is the error of a value.
        joined: whether the adversary learns and is heard. Who trains says when: joined too early, it learns to tell
            what is merely unfinished.
    """

    reconstruction: Reconstruction = field(default_factory=Reconstruction)
    weight: float = 0.1
    joined: bool = True

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """Both players' losses for each image; logs the parts, and the share of the verdicts that are right."""
        played: Played = model(batch["image"], key)
        alone = self.reconstruction.of(batch["image"], played.coded)
        told, fooled = verdict_loss(played.real, played.fake), -played.passed.flatten(1).mean(1)
        right = ((played.real > 0).float() + (played.fake < 0).float()).flatten(1).mean(1) / 2
        value = alone.value + float(self.joined) * (self.weight * fooled + told)  # 0 times: its weights stay
        return Losses(value, alone.metrics | {"discriminator": told, "generator": fooled, "told_apart": right})


def verdict_loss(real: Float[Tensor, "B h w"], fake: Float[Tensor, "B h w"]) -> Float[Tensor, "B"]:
    """The discriminator's hinge loss, half of the sum over data and reconstructions; 1 when it knows nothing."""
    return 0.5 * (torch.relu(1 - real) + torch.relu(1 + fake)).flatten(1).mean(1)
