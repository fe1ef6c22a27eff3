"""The map behind a world: which cell a state stands on, and what that cell looks like.

The dynamics are in the tables; a layout is only for what is seen: drawings, image planes and coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

LOOKS = ("floor", "wall", "start", "goal", "forbidden", "hole")


@dataclass(frozen=True, eq=False)
class Layout:
    """A map of `rows` x `cols` cells."""

    glyphs: tuple[str, ...]
    """One string for each row, one character for each cell, as in the world's own file."""
    look: Int64[Tensor, "rows cols"]
    """What each cell looks like, an index into `LOOKS`."""
    cell: Int64[Tensor, "S 2"]
    """Row and column of each state. Several states may share a cell."""

    @property
    def rows(self) -> int:
        return self.look.shape[0]

    @property
    def cols(self) -> int:
        return self.look.shape[1]

    @cached_property
    def state(self) -> Int64[Tensor, "rows cols"]:
        """The state of each cell, -1 in walls; the lowest where several share it."""
        count = len(self.cell)
        place = self.cell[:, 0] * self.cols + self.cell[:, 1]  # [S]
        flat = torch.full((self.rows * self.cols,), count)
        flat = flat.scatter_reduce(0, place, torch.arange(count), "amin")
        return torch.where(flat == count, -1, flat).view(self.rows, self.cols)

    def shows(self, look: str) -> Bool[Tensor, "rows cols"]:
        """Which cells look like `look`, one of `LOOKS`."""
        return self.look == LOOKS.index(look)
