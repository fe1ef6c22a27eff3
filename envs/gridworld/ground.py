"""The map of a grid in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int64

from envs.gridworld.grid import WALL, Grid


@dataclass(frozen=True, eq=False)
class Ground:
    """Kinds are numbers in the order of `Grid.kinds`; cells that are no walls are numbered in map order, C of them."""

    kind: Int64[np.ndarray, "rows cols"]
    """Kind of each cell."""
    number: Int[np.ndarray, "rows cols"]
    """Number of each cell; -1 for walls."""
    row: Int[np.ndarray, "C"]
    col: Int[np.ndarray, "C"]
    own: Int64[np.ndarray, "C"]
    """Kind of each numbered cell, as it is drawn."""

    @classmethod
    def of(cls, grid: Grid) -> Ground:
        """The numbers of a map whose glyphs are all known. Time and memory are linear in its cells."""
        code = np.frombuffer("".join(grid.map).encode("utf-32-le"), np.uint32)
        by_code = np.zeros(int(code.max()) + 1, np.int64)
        for i, glyph in enumerate(kind.glyph for kind in grid.kinds.values()):
            if ord(glyph) < len(by_code):
                by_code[ord(glyph)] = i
        kind = by_code[code].reshape(len(grid.map), -1)  # [rows, cols]
        free = kind != list(grid.kinds).index(WALL)
        number = np.where(free, np.cumsum(free, dtype=np.int32).reshape(free.shape) - 1, np.int32(-1))
        row, col = (axis.astype(np.int32) for axis in np.nonzero(free))
        return cls(kind, number, row, col, kind[free])

    def only(self, kind: int) -> int:
        """The one cell of that kind, or the first; -1 where there is none."""
        found = np.flatnonzero(self.own == kind)
        return int(found[0]) if len(found) else -1
