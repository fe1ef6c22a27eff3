"""How good the samples are, by a judge that never saw the model: a classifier of real images.

judge = Judge(split.train, split.test)
judge.accuracy                          # on real images held out: how far to trust it
judge.recognised(samples, labels)       # [N] whether each sample is taken for the class it was asked to be
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from sklearn.svm import SVC
from torch import Tensor

from generative.train import TensorData


class Judge:
    """A support vector machine with Gaussian kernel on the pixels (Cortes & Vapnik 1995); about 99% on the digits.

    Args:
        train: images and labels to learn from ("image" [N, C, H, W] in [-1, 1], "label" [N]).
        test: images and labels to be measured on.
    """

    def __init__(self, train: TensorData, test: TensorData) -> None:
        self.classifier = SVC(C=10.0, gamma="scale", random_state=0)
        self.classifier.fit(_features(train.tensors["image"]).numpy(), train.tensors["label"].numpy())
        self.accuracy = self.recognised(test.tensors["image"], test.tensors["label"]).float().mean().item()

    def classify(self, image: Float[Tensor, "N C H W"]) -> Int64[Tensor, "N"]:
        """The class of each image."""
        return torch.from_numpy(self.classifier.predict(_features(image).numpy()))

    def recognised(self, image: Float[Tensor, "N C H W"], label: Int64[Tensor, "N"]) -> Bool[Tensor, "N"]:
        """Whether each image is taken for its label."""
        return self.classify(image) == label.cpu()


def _features(image: Tensor) -> Tensor:
    return image.detach().cpu().clamp(-1, 1).flatten(1).double()  # [N, C*H*W]
