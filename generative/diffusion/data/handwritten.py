"""scikit-learn's 1,797 handwritten digits of 8x8 pixels, real and embedded.

Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits" (UCI), the test part.
"""

from __future__ import annotations

import torch

from generative.diffusion.data.split import Images, Split
from lab import streams


def digits(seed: int = 0, test: int = 450) -> Split:
    """The digits, ink at 1 on paper at -1, with `test` of them drawn by `seed` and held out for the judge."""
    from sklearn.datasets import load_digits  # a second of importing, which who draws no digits is spared

    bunch = load_digits()
    image = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1  # [1797, 1, 8, 8], 0..16 -> [-1, 1]
    everything = Images(image, torch.from_numpy(bunch.target).long())
    order = torch.randperm(len(everything), generator=streams.generator(seed, "digits"))
    names = tuple(str(digit) for digit in range(10))
    return Split(everything.take(order[test:]), everything.take(order[:test]), names)
