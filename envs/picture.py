"""One moment of a world to look at: a map in text, and a picture in pixels. For figures see `envs.render`."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from envs.layout import LOOKS, Layout
from envs.world import World

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


def text(world: World, state: int | None = None) -> str:
    """The map, a glyph for each cell, a line for each row, and @ where `state` is. Raises ValueError without a map."""
    layout = layout_of(world)
    rows = [list(row) for row in layout.glyphs]
    if state is not None:
        row, col = layout.cell[state].tolist()
        rows[row][col] = "@"
    return "\n".join(" ".join(row) for row in rows)


def rgb_array(world: World, state: int | None = None, pixels: int = 32) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of the map with the agent as a disc, `pixels` a cell. Raises ValueError without a map."""
    layout = layout_of(world)
    palette = np.array([rgb(COLOURS[look]) for look in LOOKS])
    look = layout.look[0 if state is None else layout.mode[state]]
    picture = palette[look.numpy()].repeat(pixels, 0).repeat(pixels, 1)  # [H, W, 3], in [0, 1]
    line = 0.88 * picture  # between the cells
    picture[::pixels], picture[:, ::pixels] = line[::pixels], line[:, ::pixels]
    if state is not None:
        row, col = (layout.cell[state].numpy() + 0.5) * pixels - 0.5
        y, x = np.ogrid[: picture.shape[0], : picture.shape[1]]
        distance = np.hypot(y - row, x - col)[..., None]
        for radius, colour in ((0.38, PAPER), (0.31, AGENT)):
            cover = np.clip(radius * pixels - distance + 0.5, 0, 1)  # soft over the last pixel
            picture = (1 - cover) * picture + cover * np.array(rgb(colour))
    return (picture * 255).round().astype(np.uint8)


def layout_of(world: World) -> Layout:
    """The map of a world. Raises ValueError when it has none."""
    if world.layout is None:
        raise ValueError(f"{world.name} has no map to draw, expected a grid world")
    return world.layout


def rgb(colour: str) -> tuple[float, float, float]:
    """ "#rrggbb" as three numbers from 0 to 1."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red / 255, green / 255, blue / 255
