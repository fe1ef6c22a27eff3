"""A scene as a picture of 16 x 16 pixels: three by three cells of 4 x 4, with a line around each.

The colours are those of the worlds (`envs.pixels.tiles`). A picture of a scene holds no others, so it is a table of
numbers into the palette. Any two glyphs, and the empty cell, differ in at least 6 of their 16 pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from envs.pixels.tiles import COLOURS as GROUNDS
from envs.pixels.tiles import INKS, rgb
from generative.diffusion.data.scenes.grammar import COLOURS, Layout, Thing

SIDE, CELLS, PITCH = 16, 3, 5  # pixels of a picture, cells in a row, pixels from one cell to the next
GLYPH = PITCH - 1  # pixels of a side
FLOOR, LINE, FIRST = 0, 1, 2  # places in the palette; the colours of things begin at FIRST
SHADE = 0.85  # of the floor, for lines

GLYPHS = {
    "agent": ".##.  ####  .##.  #..#",
    "goal": "###.  ###.  #...  #...",
    "key": "....  ##..  ####  ##.#",
    "door": ".##.  .##.  .##.  .##.",
    "ball": ".##.  #..#  #..#  .##.",
    "box": "####  ####  ####  ####",
}

MASKS = {shape: np.array([[mark == "#" for mark in row] for row in rows.split()]) for shape, rows in GLYPHS.items()}
"""Where each glyph has ink: bool [4, 4]."""


def palette() -> Float32[Tensor, "colours 3"]:
    """Floor, line, then the colours of things in the order of `grammar.COLOURS`; RGB in [-1, 1]."""
    floor = rgb(GROUNDS["floor"])
    shaded = tuple(SHADE * level for level in floor)
    return torch.tensor([floor, shaded, *(rgb(INKS[colour]) for colour in COLOURS)]) * 2 - 1


def corner(cell: tuple[int, int]) -> tuple[slice, slice]:
    """The pixels of a cell, without its lines."""
    top, left = (1 + PITCH * place for place in cell)
    return slice(top, top + GLYPH), slice(left, left + GLYPH)


def ground() -> Int64[np.ndarray, "16 16"]:
    """The empty scene as places in the palette."""
    page = np.full((SIDE, SIDE), FLOOR, dtype=np.int64)
    page[::PITCH], page[:, ::PITCH] = LINE, LINE
    return page


def tile(thing: Thing | None) -> Int64[np.ndarray, "4 4"]:
    """One cell as places in the palette."""
    if thing is None:
        return np.full((GLYPH, GLYPH), FLOOR, dtype=np.int64)
    return np.where(MASKS[thing.shape], FIRST + COLOURS.index(thing.colour), FLOOR)


def paint(layout: Layout) -> Float32[Tensor, "3 16 16"]:
    """The picture, RGB in [-1, 1]."""
    page = ground()
    for cell, thing in layout.items():
        page[corner(cell)] = tile(thing)
    return palette()[torch.from_numpy(page)].movedim(2, 0).contiguous()
