"""What every data set here is: images in [-1, 1], perhaps with labels, perhaps with captions, in two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from generative.diffusion.data.report import Report
from generative.train import Batch

CLASSES = 100_000  # labels beyond this many are no labels


class DataError(ValueError):
    """A file or folder holds no images to learn from; the message names it, what was found and what was expected."""


@dataclass(frozen=True, eq=False)
class Images:
    """One part of a data set (`generative.train.Data`).

    Attributes:
        image: in [-1, 1], one channel (grey) or three (RGB).
        label: the class of each, where there are classes.
        captions: the words of each, where there are any.

    Raises:
        ValueError: where the labels or the captions are not as many as the images.
    """

    image: Float32[Tensor, "N C H W"]
    label: Int64[Tensor, "N"] | None = None
    captions: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name, told in (("labels", self.label), ("captions", self.captions)):
            if told is not None and len(told) != len(self.image):
                raise ValueError(f"{len(told)} {name} for {len(self.image)} images")

    def __len__(self) -> int:
        return len(self.image)

    @property
    def tensors(self) -> Batch:
        """ "image", and "label" where there are classes."""
        return {"image": self.image} if self.label is None else {"image": self.image, "label": self.label}

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        """The tensors at `index`; captions become tensors only with a tokenizer."""
        return {name: tensor[index] for name, tensor in self.tensors.items()}

    def take(self, index: Int64[Tensor, "B"]) -> Images:
        """The part of the part at `index`, captions too."""
        words = None if self.captions is None else tuple(self.captions[i] for i in index.tolist())
        return Images(self.image[index], None if self.label is None else self.label[index], words)


@dataclass(frozen=True, eq=False)
class Split:
    """Two disjoint parts of one data set.

    Attributes:
        train: what may be learned from.
        test: what is held out for the judge; it may be empty.
        names: of the classes, by label; empty where there are no labels.
        report: what was found while reading; empty where nothing was read.
        check: says of pictures and captions which obey, where that can be said exactly.
    """

    train: Images
    test: Images
    names: tuple[str, ...] = ()
    report: Report = field(default_factory=Report)
    check: Callable[[Float32[Tensor, "N C H W"], Sequence[str]], Bool[Tensor, "N"]] | None = None

    @property
    def classes(self) -> int:
        """The number of labels, 0 where there are none."""
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: (C, H, W)."""
        _, channels, height, width = self.train.image.shape
        return channels, height, width


def divide(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Train and test part: of all images, the `share` whose pixels have the lowest hash are held out.

    Equal pictures have equal hashes, so none stands on both sides; and a picture more or less moves few others. The
    test part is larger than its share only where the last of it has copies.

    Raises:
        ValueError: for a share that is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"the share held out is {share:g}; expected 0 <= share < 1")
    salt = seed.to_bytes(16, "little", signed=True)
    rows = images.image.numpy()
    ranks = [hashlib.blake2b(row.tobytes(), digest_size=8, key=salt).digest() for row in rows]
    count = round(share * len(images))
    last = sorted(ranks)[count - 1] if count else b""
    held_out = np.array([rank <= last for rank in ranks], dtype=bool)
    kept, away = (torch.from_numpy(side.nonzero()[0]) for side in (~held_out, held_out))
    return images.take(kept), images.take(away)


def number(labels: Sequence[int] | Sequence[str]) -> tuple[tuple[str, ...], Int64[Tensor, "N"]]:
    """Names of the classes, and the label of each image.

    Whole numbers from 0 stay as they are (a file with only threes still has label 3); anything else is numbered in
    the order of its words.

    Raises:
        ValueError: for numbers that are negative or beyond 100,000.
    """
    if all(isinstance(label, int) for label in labels):
        whole = torch.tensor([int(label) for label in labels], dtype=torch.int64)
        low, high = int(whole.min()), int(whole.max())
        if low < 0 or high >= CLASSES:
            raise ValueError(f"labels go from {low} to {high}; expected whole numbers from 0, below {CLASSES:,}")
        return tuple(str(i) for i in range(high + 1)), whole
    words = [str(label) for label in labels]
    names = tuple(sorted(set(words)))
    place = {name: i for i, name in enumerate(names)}
    return names, torch.tensor([place[word] for word in words], dtype=torch.int64)
