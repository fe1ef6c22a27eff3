"""Whether a picture shows what its caption says: read back what stands where, then compare.

1. Every pixel is taken for the nearest colour of the palette (Euclidean, in RGB); floor and line are one: the ground.
2. Every cell is compared with the empty cell and the 36 things. It is read as the one from which at most 2 of its 16
   pixels differ; as any two of them differ in 6 or more, there is never a second. Else the scene cannot be read.
3. On the lines at most 14 of the 112 pixels, the same share, may have the colour of a thing.

So a scene that can be read holds what was read and nothing else; a picture that cannot be read obeys no caption.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from generative.diffusion.data.scenes.drawing import FIRST, FLOOR, GLYPH, LINE, SIDE, corner, ground, palette, tile
from generative.diffusion.data.scenes.grammar import COLOURS, SHAPES, Layout, Thing, holds, parse
from generative.diffusion.data.scenes.sampling import GRID

TOLERANCE = 2  # pixels of a cell that may be wrong

THINGS: tuple[Thing | None, ...] = (None, *(Thing(colour, shape) for colour, shape in product(COLOURS, SHAPES)))


def obeys(image: Float[Tensor, "3 16 16"], caption: str) -> bool:
    """Whether the picture, in [-1, 1], shows what the caption says and nothing else. Raises CaptionError."""
    return bool(obeyed(image[None], [caption])[0])


def obeyed(images: Float[Tensor, "N 3 16 16"], captions: Sequence[str]) -> Bool[Tensor, "N"]:
    """`obeys` for each picture and its caption.

    Raises:
        CaptionError: for words that are no caption.
        ValueError: where there are not as many captions as pictures.
    """
    if len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} pictures")
    told = [parse(words) for words in captions]
    seen = read(images)
    true = [layout is not None and holds(meaning, layout) for meaning, layout in zip(told, seen, strict=True)]
    return torch.tensor(true, dtype=torch.bool)


def read(images: Float[Tensor, "N 3 16 16"]) -> list[Layout | None]:
    """What stands where in each picture; None where it cannot be read."""
    page = nearest(images)  # [N, 16, 16]
    templates = np.stack([tile(thing) for thing in THINGS])  # [37, 4, 4]
    clear = ((page >= FIRST) & (ground() == LINE)).sum((1, 2)) <= TOLERANCE * (ground() == LINE).sum() / GLYPH**2
    found = np.empty((len(page), len(GRID)), dtype=np.int64)
    for place, cell in enumerate(GRID):
        wrong = (page[:, *corner(cell)][:, None] != templates).sum((2, 3))  # [N, 37]
        found[:, place] = wrong.argmin(1)
        clear &= wrong.min(1) <= TOLERANCE
    return [
        {cell: thing for cell, i in zip(GRID, row, strict=True) if (thing := THINGS[i]) is not None} if ok else None
        for row, ok in zip(found, clear, strict=True)
    ]


def nearest(images: Float[Tensor, "N 3 16 16"]) -> Int64[np.ndarray, "N 16 16"]:
    """The place in the palette of the colour nearest to each pixel, FLOOR for a line too; -1 for what is no number."""
    pixels = images.detach().cpu().float().movedim(1, 3).reshape(-1, 3)  # [N * 256, 3]
    away = (pixels[:, None] - palette()).square().sum(2)  # [N * 256, colours]
    place = torch.where(away.isfinite().all(1), away.argmin(1), -1)
    return torch.where(place == LINE, FLOOR, place).view(-1, SIDE, SIDE).numpy()
