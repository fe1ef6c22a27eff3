"""One moment of a world to look at: its map in text, in a terminal's colours, in pixels. For figures: `envs.render`."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from envs.layout import LOOKS, Layout
from envs.pixels import mosaic, tiles
from envs.pixels.tiles import AGENT as AGENT
from envs.pixels.tiles import COLOURS as COLOURS
from envs.pixels.tiles import PAPER as PAPER
from envs.pixels.tiles import rgb as rgb
from envs.world import World

SIDE = 2048  # pixels that a picture is long, at most, where a cell can be that small


def text(world: World, state: int | None = None) -> str:
    """The map, a glyph for each cell, a line for each row, @ where `state` is; below it wind and badges.

    Raises:
        ValueError: without a map.
    """
    layout, state = _here(world, state)
    return "\n".join([*map(" ".join, glyphs(layout, state)), *wind(layout), *badges(layout, state)])


def terminal(world: World, state: int | None = None) -> str:
    """`text` in colours, by the escapes of a terminal, two columns for each cell. Raises ValueError without a map."""
    layout, state = _here(world, state)
    look = layout.look[0 if state is None else int(layout.mode[state])].tolist()
    inked = {(row, col): colour for row, col, colour in mosaic.inks(layout)}
    lines = []
    for row, line in enumerate(glyphs(layout, state)):
        cells = []
        for col, glyph in enumerate(line):
            name = LOOKS[look[row][col]]
            paper = inked.get((row, col), COLOURS[name]) if name in ("key", "door") else COLOURS[name]
            if glyph == "@":
                cells.append(f"\x1b[1m{_escape(48, AGENT)}{_escape(38, PAPER)}@ \x1b[22m")
            else:  # the colour says enough of a floor or a wall
                shown = " " if name in ("floor", "wall") else glyph
                cells.append(f"{_escape(48, paper)}{_escape(38, _against(paper))}{shown} ")
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join([*lines, *wind(layout), *badges(layout, state)])


def rgb_array(world: World, state: int | None = None, pixels: int | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """A picture of the map with the agent as a disc, and the badges below it.

    Args:
        world: any with a map.
        state: where the agent is; None for the map alone.
        pixels: side of a cell; by default 32, fewer where the map is larger than `SIDE`.

    Raises:
        ValueError: without a map.
    """
    layout, state = _here(world, state)
    return mosaic.paint(layout, state, pixels or min(32, max(1, SIDE // max(layout.rows, layout.cols))))


def glyphs(layout: Layout, state: int | None = None) -> list[list[str]]:
    """The map's glyphs as the mode of `state` has them, a key that was taken as a floor, and @ at the state's cell."""
    rows = [list(row) for row in layout.glyphs]
    if state is None:
        return rows
    first, now = layout.look[0], layout.look[int(layout.mode[state])]
    floors = first.eq(LOOKS.index("floor")).nonzero().tolist()
    floor = rows[floors[0][0]][floors[0][1]] if floors else "."
    for row, col in now.ne(first).nonzero().tolist():
        rows[row][col] = floor
    row, col = layout.cell[state].tolist()
    rows[row][col] = "@"
    return rows


def wind(layout: Layout) -> list[str]:
    """A line with the wind below each column; none where it is calm."""
    return ["".join(f"{up:<2}" for up in layout.wind) + " wind, cells upwards"] if any(layout.wind) else []


def badges(layout: Layout, state: int | None = None) -> list[str]:
    """A line in words for what is seen besides the map, "red key x1, cue north"; none where there is nothing."""
    if layout.badges is None or state is None:
        return []
    words = []
    for name, share, column in zip(layout.badge_names, layout.badges[state].tolist(), layout.badges.T, strict=True):
        if share > 0:
            one = float(column[column > 0].min())  # the share of a single key
            words.append(f"{name} x{round(share / one)}" if name.endswith(tiles.KEY) else name)
    return [", ".join(words)] if words else []


def layout_of(world: World) -> Layout:
    """The map of a world. Raises ValueError when it has none."""
    if world.layout is None:
        raise ValueError(f"{world.name} has no map to draw, expected a grid world")
    return world.layout


def _here(world: World, state: int | None) -> tuple[Layout, int | None]:
    """The map that `state` is on, and its number there: in a mixture, those of the world it belongs to."""
    if not world.parts or state is None:
        return layout_of(world), state
    part, own = divmod(state, world.mdp.states // len(world.parts))
    return layout_of(world.parts[part]), own


def _escape(what: int, colour: str) -> str:
    """Begin a colour: of the letters (38), or of what is behind them (48)."""
    red, green, blue = bytes.fromhex(colour[1:])
    return f"\x1b[{what};2;{red};{green};{blue}m"


def _against(colour: str) -> str:
    """Ink that can be read on a colour: dark on light (by relative luminance), light on dark."""
    red, green, blue = rgb(colour)
    return COLOURS["wall"] if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.45 else PAPER
