"""Images to learn from: scikit-learn's 1,797 handwritten digits of 8x8 pixels, real and embedded.

Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), the test part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits

from generative.train import TensorData
from lab import streams


@dataclass(frozen=True)
class Split:
    """Two disjoint parts of one data set, each {"image": float32 [N, C, H, W] in [-1, 1], "label": int64 [N]}."""

    train: TensorData
    test: TensorData
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: (C, H, W)."""
        _, channels, height, width = self.train.tensors["image"].shape
        return channels, height, width


def digits(seed: int = 0, test: int = 450) -> Split:
    """The digits, ink at 1 on paper at -1, with `test` of them drawn by `seed` and held out for the judge."""
    bunch = load_digits()
    image = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1  # [1797, 1, 8, 8], 0..16 -> [-1, 1]
    label = torch.from_numpy(bunch.target).long()
    order = torch.randperm(len(label), generator=streams.generator(seed, "digits"))
    held_out, rest = order[:test], order[test:]
    return Split(
        train=TensorData({"image": image[rest], "label": label[rest]}),
        test=TensorData({"image": image[held_out], "label": label[held_out]}),
        classes=10,
    )
