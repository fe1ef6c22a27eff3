"""A whole map in pixels: a mosaic of tiles, the badges in a strip below it.

As the agent, a key or a badge changes one tile only, the pictures of all states are painted in a few gathers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from envs.layout import LOOKS, Layout
from envs.pixels import tiles

Kind = tuple[str, str]
"""What a tile is made from: its look and its colour."""
BLANK: Kind = ("floor", tiles.PAPER)  # the rest of the strip


def paint(layout: Layout, state: int | None, pixels: int) -> UInt8[np.ndarray, "H W 3"]:
    """The picture of one state: its mode's map, the agent on its cell, its badges. For None, mode 0 without agent."""
    kinds, ids = _kinds(layout)
    picture = _lay(kinds, ids[0 if state is None else int(layout.mode[state])], pixels)
    cells = picture.reshape(height(layout), pixels, layout.cols, pixels, 3)  # a view
    for v, name in enumerate(layout.badge_names):
        value = 0.0 if state is None or layout.badges is None else float(layout.badges[state, v])
        row, col = _place(layout, v)
        cells[row, :, col] = tiles.badge(name, v, value, pixels)
    if state is not None:
        row, col = layout.cell[state].tolist()
        cells[row, :, col] = tiles.tile(*kinds[ids[layout.mode[state], row, col]], pixels, agent=True)
    return picture


def paint_all(layout: Layout, pixels: int) -> UInt8[Tensor, "S 3 H W"]:
    """`paint` of every state, channels first."""
    kinds, ids = _kinds(layout)
    maps = torch.stack([_channels_first(_lay(kinds, one, pixels)) for one in ids])  # [M, 3, H, W]
    table = maps[layout.mode]
    cells = table.view(-1, 3, height(layout), pixels, layout.cols, pixels).permute(0, 2, 4, 1, 3, 5)
    row, col = layout.cell.unbind(1)
    agents = torch.stack([_channels_first(tiles.tile(*kind, pixels, agent=True)) for kind in kinds])
    cells[torch.arange(len(table)), row, col] = agents[torch.from_numpy(ids)[layout.mode, row, col]]
    for v, badge in enumerate(() if layout.badges is None else layout.badges.unbind(1)):
        values, which = np.unique(badge.numpy(), return_inverse=True)
        drawn = [tiles.badge(layout.badge_names[v], v, value, pixels) for value in values.tolist()]
        at = _place(layout, v)
        cells[:, at[0], at[1]] = torch.stack([_channels_first(one) for one in drawn])[torch.from_numpy(which)]
    return table


def height(layout: Layout) -> int:
    """Rows of tiles in a picture: those of the map, and of the badges below it."""
    return layout.rows - (-len(layout.badge_names) // layout.cols)


@lru_cache(maxsize=16)
def inks(layout: Layout) -> tuple[tuple[int, int, str], ...]:
    """Row, column and "#rrggbb" of each key and door whose colour shows in what taking and opening it changes.

    A mode that differs from the first in one key's cell alone raises the badge of that key's colour; a mode that
    differs in that cell and a door's opened that door with it.
    """
    found: dict[tuple[int, int], str] = {}
    for cells, mode in _changes(layout):
        if len(cells) == 1:
            badges = layout.badges[layout.mode == mode].amax(0) if layout.badges is not None else ()
            for name, most in zip(layout.badge_names, badges, strict=True):
                if name.endswith(tiles.KEY) and most > 0:
                    found[cells[0]] = tiles.ink(name.removesuffix(tiles.KEY))
    keys = set(found)
    for cells, _ in _changes(layout):
        if len(cells) == 2 and len(known := keys.intersection(cells)) == 1:
            (door,) = set(cells) - known
            found[door] = found[known.pop()]
    return tuple((row, col, colour) for (row, col), colour in found.items())


def _changes(layout: Layout) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """The cells in which each mode differs from the first, where they are one or two, and the mode."""
    changed = layout.look != layout.look[0]  # [M, rows, cols]
    few = (changed.flatten(1).sum(1) - 1).abs() <= 1
    for mode in few.nonzero().flatten().tolist():
        yield [(row, col) for row, col in changed[mode].nonzero().tolist()], mode


def _kinds(layout: Layout) -> tuple[list[Kind], Int64[np.ndarray, "M h cols"]]:
    """The kinds of tile there are, and which each cell of each mode's picture is, the strip of badges included."""
    kinds = [(look, tiles.COLOURS[look]) for look in LOOKS] + [BLANK]
    below = height(layout) - layout.rows
    ids = np.pad(layout.look.numpy(), ((0, 0), (0, below), (0, 0)), constant_values=len(LOOKS))
    for row, col, colour in inks(layout):
        look = int(layout.look[0, row, col])
        ids[:, row, col] = np.where(ids[:, row, col] == look, len(kinds), ids[:, row, col])
        kinds.append((LOOKS[look], colour))
    return kinds, ids


def _lay(kinds: list[Kind], ids: Int64[np.ndarray, "h cols"], pixels: int) -> UInt8[np.ndarray, "H W 3"]:
    all_tiles = np.stack([tiles.tile(*kind, pixels) for kind in kinds])  # [T, p, p, 3]
    rows, cols = ids.shape
    return all_tiles[ids].transpose(0, 2, 1, 3, 4).reshape(rows * pixels, cols * pixels, 3)


def _place(layout: Layout, v: int) -> tuple[int, int]:
    """Row and column of the v-th badge's tile."""
    return layout.rows + v // layout.cols, v % layout.cols


def _channels_first(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())
