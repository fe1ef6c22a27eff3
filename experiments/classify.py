"""Pictures to labels: the objective, small distortions, and which were misread.

What `handwriting` and `mnist` share. Pictures hold ink in [0, 1] on paper of 0, `[B, 1, H, W]`.

Sources: label smoothing, Szegedy et al. 2016, sec. 7; affine distortions of training digits, LeCun et al. 1998,
sec. III-A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from torch import Tensor, nn
from torch.nn import functional

from generative.train import Batch, Losses
from lab import plots, streams

TILES = 15  # digits shown at most


@dataclass(frozen=True)
class Distortion:
    """How far a training picture is moved, turned and stretched: each picture by its own uniform draws.

    Attributes:
        shift: pixels, in each direction.
        angle: degrees.
        stretch: change of size, as a share of it.
    """

    shift: float = 0.0
    angle: float = 0.0
    stretch: float = 0.0

    def __call__(self, image: Float[Tensor, "B C H W"], key: Int64[Tensor, "B"]) -> Float[Tensor, "B C H W"]:
        """The pictures distorted, by bilinear interpolation, with paper where nothing was."""
        if not (self.shift or self.angle or self.stretch):
            return image
        right, down, turn, size = (2 * streams.uniform(key, i) - 1 for i in range(4))  # each [B], in [-1, 1)
        height, width = image.shape[2:]
        angle, zoom = math.radians(self.angle) * turn, 1 + self.stretch * size
        cosine, sine = angle.cos() / zoom, angle.sin() / zoom
        across, along = 2 * self.shift * right / width, 2 * self.shift * down / height  # the picture is 2 wide
        matrix = torch.stack(
            [
                torch.stack([cosine, sine * (height / width), across], dim=1),
                torch.stack([-sine * (width / height), cosine, along], dim=1),
            ],
            dim=1,
        )  # [B, 2, 3]: where each pixel of the new picture comes from in the old
        grid = functional.affine_grid(matrix, list(image.shape), align_corners=False)  # [B, H, W, 2]
        return functional.grid_sample(image, grid, align_corners=False)


@dataclass(frozen=True)
class Classify:
    """Cross-entropy with the label smoothed over all classes (`generative.train.Objective`).

    Attributes:
        distortion: of the pictures, before the network sees them.
        smoothing: the share of the target that all classes have in common.
        half: run the network in bfloat16 where torch's autocast knows that to be safe.
    """

    distortion: Distortion = Distortion()
    smoothing: float = 0.0
    half: bool = False

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """`batch` holds "image" [B, C, H, W] and "label" [B]; logs the share that is right."""
        image, label = self.distortion(batch["image"], key), batch["label"]
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.half):
            logits = model(image)
        value = functional.cross_entropy(logits.float(), label, reduction="none", label_smoothing=self.smoothing)
        return Losses(value, {"accuracy": (logits.argmax(1) == label).float()})


@torch.no_grad()
def read(model: nn.Module, image: Float[Tensor, "N C H W"], batch: int = 500) -> Int64[Tensor, "N"]:
    """The class that `model` gives each picture, as it is in use (no statistics of the batch)."""
    was = model.training
    model.eval()
    device = next(model.parameters()).device
    parts = (image[start : start + batch] for start in range(0, len(image), batch))
    seen = torch.cat([model(part.to(device)).argmax(1).cpu() for part in parts])
    model.train(was)
    return seen


def misread(
    image: Float[Tensor, "N 1 H W"], label: Int64[Tensor, "N"], said: Int64[Tensor, "N"]
) -> Iterator[tuple[np.ndarray, str]]:
    """At most TILES digits that were misread, and what was said of each."""
    for i in (said != label).nonzero()[:TILES, 0].tolist():
        yield image[i, 0].numpy(), f"{label[i]} as {said[i]}"


def mosaic(ax: Axes, tiles: Sequence[tuple[np.ndarray, str]], columns: int = 5) -> None:
    """Pictures in rows, each with its words below."""
    ax.set_axis_off()
    for i, (tile, words) in enumerate(tiles):
        row, column = divmod(i, columns)
        x, y = column * 1.25, -row * 1.5
        ax.imshow(1 - tile, cmap="gray", vmin=0, vmax=1, extent=(x, x + 1, y, y + 1), interpolation="nearest")
        ax.text(x + 0.5, y - 0.08, words, ha="center", va="top", fontsize=8, color=plots.INK)
    ax.set_xlim(-0.1, columns * 1.25)
    ax.set_ylim(-(max(len(tiles) - 1, 0) // columns) * 1.5 - 0.4, 1.1)
