"""How good the samples are, by a judge that never saw the model: a classifier trained on real images alone.

judge = Judge(split.train, split.test)
judge.accuracy                          # on real images held out: how far to trust it
judge.recognised(samples, labels)       # [N] whether each sample is taken for the class it was asked to be
judge.quality(split.test.image, samples)   # distances between what it sees in real images and in samples

Its features take the place of Inception's, which know nothing of small grey pictures; so a distance is a number of this
judge, and two models are compared by one judge only. It is a function of (images, seed).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.classifiers import ResNet
from backbones.initialise import build
from generative.diffusion.data.split import Images
from generative.diffusion.measures import distances
from generative.train import Batch, Losses, TrainConfig, Trainer
from lab import streams

BATCH = 500  # images read at a time
SHIFT, ANGLE, STRETCH = 0.03, 8.0, 0.1  # of a side, degrees, of the size: how far training images are distorted


@dataclass(frozen=True)
class Quality:
    """What `generative.diffusion.measures.distances` says of samples, on a judge's features."""

    frechet: float
    kernel: float
    kernel_error: float
    precision: float
    recall: float


class Judge:
    """A residual network of 8 layers (`backbones.classifiers.ResNet`, 76 thousand weights), about 99% on the digits.

    Args:
        train: images to learn from, with labels.
        test: images to be measured on, with labels.
        seed: of its weights, and of the order and the distortion of the images.
        updates: of its training; by default one for each 60 images, at least 300, at most 1000: some seconds for
            images of 8 x 8 pixels, a minute or two for 28 x 28.
        accelerator: where it is trained and reads; by default what `accelerate` finds.

    Raises:
        ValueError: for images without labels, and for no test images.
    """

    def __init__(
        self,
        train: Images,
        test: Images,
        *,
        seed: int = 0,
        updates: int | None = None,
        accelerator: Accelerator | None = None,
    ) -> None:
        if train.label is None or test.label is None or len(test) == 0:
            raise ValueError("a judge learns from labels, and is measured on images held out: here are none")
        classes = int(max(train.label.max(), test.label.max())) + 1
        steps = min(1000, max(300, len(train) // 60)) if updates is None else updates
        network = build(lambda: ResNet(train.image.shape[1], classes, 16, 1), streams.generator(seed, "judge"))
        config = TrainConfig(
            steps=steps, batch_size=64, learning_rate=6e-3, warmup=steps // 5, final_rate=0.0, weight_decay=0.05
        )
        trainer = Trainer(network, _Reading(), train, config, seed=seed, accelerator=accelerator)
        for _ in trainer.run():
            pass
        self.body, self.head = network.eval(), network.output
        self.body.output = nn.Identity()  # type: ignore[assignment]  # so that the body ends with the features
        self.accuracy = self.recognised(test.image, test.label).double().mean().item()

    @torch.no_grad()
    def features(self, image: Float[Tensor, "N C H W"]) -> Float[Tensor, "N D"]:
        """What the last layer reads: D = 64 numbers an image, the means of its maps. On the CPU."""
        device = self.head.weight.device
        return torch.cat([self.body(part.to(device).float().clamp(-1, 1)).cpu() for part in torch.split(image, BATCH)])

    @torch.no_grad()
    def classify(self, image: Float[Tensor, "N C H W"]) -> Int64[Tensor, "N"]:
        """The class of each image."""
        return self.head(self.features(image).to(self.head.weight.device)).argmax(1).cpu()

    def recognised(self, image: Float[Tensor, "N C H W"], label: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """Whether each image is taken for its label."""
        return self.classify(image) == label.cpu()

    def quality(self, real: Float[Tensor, "N C H W"], samples: Float[Tensor, "M C H W"]) -> Quality:
        """How far samples are from real images. Raises ValueError for fewer than four of either."""
        x, y = self.features(real), self.features(samples)
        estimate, cover = distances.kernel(x, y), distances.cover(x, y)
        return Quality(distances.frechet(x, y), estimate.value, estimate.error, cover.precision, cover.recall)


class _Reading:
    """Cross-entropy on distorted images. Not with smoothed labels: they draw each class together, so that the features
    tell noise and blur from real images half as well.
    """

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        logits = model(_distorted(batch["image"], key))
        return Losses(functional.cross_entropy(logits.float(), batch["label"], reduction="none"))


def _distorted(image: Float[Tensor, "B C H W"], key: Int64[Tensor, "B"]) -> Float[Tensor, "B C H W"]:
    """Each image moved, turned and stretched a little by its own draws (LeCun et al. 1998, sec. III-A); edges go on."""
    right, down, turn, size = (2 * streams.uniform(key, i) - 1 for i in range(4))  # each [B], in [-1, 1)
    angle, zoom = math.radians(ANGLE) * turn, 1 + STRETCH * size
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    across = torch.stack([cosine, sine, 2 * SHIFT * right], 1)  # a picture is 2 wide
    along = torch.stack([-sine, cosine, 2 * SHIFT * down], 1)
    where = functional.affine_grid(torch.stack([across, along], 1), list(image.shape), align_corners=False)
    return functional.grid_sample(image, where, padding_mode="border", align_corners=False)
