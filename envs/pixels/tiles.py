"""How one cell looks in pixels: a square tile for each look, and one for each badge.

Shapes are drawn from the distance to their edge, in parts of a cell: x to the right, y down, negative inside. So they
are smooth at any size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from jaxtyping import Float64, UInt8

COLOURS = {
    "floor": "#f3f0e8",
    "wall": "#2f3440",
    "start": "#e3e6ee",
    "goal": "#3f9b63",
    "forbidden": "#f0a63c",
    "hole": "#1f3a5f",
    "portal": "#8a6fc0",
    "key": "#e8c84a",
    "door": "#a0653a",
}
AGENT, PAPER = "#c8385a", "#ffffff"
INKS = {  # of keys and doors whose colour has one of these names
    "red": "#d2402f",
    "orange": "#e07f1f",
    "yellow": "#e0b81c",
    "gold": "#e0b81c",
    "green": "#3f9b63",
    "blue": "#3d72c4",
    "purple": "#8a5fc0",
    "grey": "#8b8f98",
}
CUES = ("#3d72c4", "#e07f1f", "#3f9b63", "#8a5fc0", "#8b8f98")  # of the badges, in their order
TURNS = {"north": 0, "west": 1, "south": 2, "east": 3}  # quarter turns of the triangle that says it
KEY = " key"
"""How the name of a badge that counts keys ends; its colour stands before."""
SMALL = 6  # pixels of a cell below which it is one plain colour

Distance = Float64[np.ndarray, "p p"]
Colours = Float64[np.ndarray, "p p 3"]


@lru_cache(maxsize=1024)
def tile(look: str, colour: str, pixels: int, agent: bool = False) -> UInt8[np.ndarray, "p p 3"]:
    """One cell, read-only: the ground, what lies on it, and the agent as a disc.

    Args:
        look: one of `envs.layout.LOOKS`.
        colour: "#rrggbb" of the ground, or of the key that lies on a floor.
        pixels: side of the cell.
        agent: whether the agent stands on it.
    """
    large = pixels >= SMALL
    ground = np.array(rgb(COLOURS["floor"] if look == "key" and large else colour))
    cell = np.broadcast_to(ground, (pixels, pixels, 3)).copy()
    x, y = _middles(pixels)
    if large and colour != PAPER:
        cell[0], cell[:, 0] = 0.88 * ground, 0.88 * ground  # the line between cells
    if large:
        if look == "key":
            cell = _over(cell, key(x, y), colour)
        elif look == "door":
            cell = _over(cell, box(x - 0.5, y - 0.5, 0.32, 0.38), COLOURS["wall"], 0.35)
            cell = _over(cell, box(x - 0.5, y - 0.5, 0.27, 0.33), colour)
            cell = _over(cell, np.hypot(x - 0.67, y - 0.5) - 0.06, PAPER)
        elif look == "portal":
            ring = np.abs(np.hypot(x - 0.5, y - 0.5) - 0.27) - 0.05
            cell = _over(_over(cell, ring, PAPER, 0.8), np.hypot(x - 0.5, y - 0.5) - 0.11, PAPER, 0.8)
    if agent:
        away = np.hypot(x - 0.5, y - 0.5)
        cell = _over(_over(cell, away - 0.38, PAPER), away - 0.31, AGENT)
    return _bytes(cell)


@lru_cache(maxsize=1024)
def badge(name: str, place: int, value: float, pixels: int) -> UInt8[np.ndarray, "p p 3"]:
    """One badge, read-only, on paper: a key for keys, a triangle for a direction, a disc for anything else.

    Args:
        name: "red key", "cue north".
        place: which of the world's badges it is, for its colour.
        value: from 0, only a trace, to 1, in full colour.
        pixels: side of the tile.
    """
    cell = np.broadcast_to(np.array(rgb(PAPER)), (pixels, pixels, 3)).copy()
    x, y = _middles(pixels)
    if name.endswith(KEY):
        shape, colour = key(x, y), ink(name.removesuffix(KEY))
    elif (word := name.split()[-1]) in TURNS:
        shape, colour = np.rot90(triangle(x, y), TURNS[word]), CUES[place % len(CUES)]
    else:
        shape, colour = np.hypot(x - 0.5, y - 0.5) - 0.3, CUES[place % len(CUES)]
    return _bytes(_over(cell, shape, colour, 0.15 + 0.85 * value))


def ink(colour: str) -> str:
    """ "#rrggbb" of a key's colour in words; that of a plain key where the word is not known."""
    return INKS.get(colour, COLOURS["key"])


def key(x: Distance, y: Distance) -> Distance:
    """A key: a ring, a shaft to its right, and two teeth."""
    ring = np.abs(np.hypot(x - 0.3, y - 0.45) - 0.13) - 0.055
    shaft = box(x - 0.63, y - 0.45, 0.22, 0.05)
    teeth = np.minimum(box(x - 0.66, y - 0.55, 0.04, 0.1), box(x - 0.81, y - 0.55, 0.04, 0.1))
    return np.minimum(ring, np.minimum(shaft, teeth))


def triangle(x: Distance, y: Distance) -> Distance:
    """A triangle that points up."""
    side = (2 * np.abs(x - 0.5) - (y - 0.17)) / np.sqrt(5.0)
    return np.maximum(side * 1.0, y - 0.78)


def box(x: Distance, y: Distance, width: float, height: float) -> Distance:
    """A box around the origin, `width` and `height` from its middle."""
    return np.maximum(np.abs(x) - width, np.abs(y) - height)


def rgb(colour: str) -> tuple[float, float, float]:
    """ "#rrggbb" as three numbers from 0 to 1."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red / 255, green / 255, blue / 255


def _middles(pixels: int) -> tuple[Distance, Distance]:
    """x and y of the middle of each pixel."""
    middles = (np.arange(pixels) + 0.5) / pixels
    x, y = np.meshgrid(middles, middles)
    return x, y


def _over(cell: Colours, distance: Distance, colour: str, strength: float = 1.0) -> Colours:
    """A shape laid over a cell, soft over the last pixel."""
    cover = strength * np.clip(0.5 - distance * len(cell), 0, 1)[..., None]
    return (1 - cover) * cell + cover * np.array(rgb(colour))


def _bytes(cell: Colours) -> UInt8[np.ndarray, "p p 3"]:
    whole = (cell * 255).round().astype(np.uint8)
    whole.setflags(write=False)
    return whole
