"""The map behind a world: which cell a state stands on, what that cell looks like, what else can be seen.

The dynamics are in the tables; a layout is only for what is seen: drawings, image planes and coordinates. A state is a
cell and a *mode*, what the world remembers besides the cell: keys held, doors open, a cue. Most worlds have one mode.
States of one mode are numbered in map order, mode after mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

LOOKS = ("floor", "wall", "start", "goal", "forbidden", "hole", "portal", "key", "door")


@dataclass(frozen=True, eq=False)
class Layout:
    """A map of `rows` x `cols` cells, seen in M modes."""

    glyphs: tuple[str, ...]
    """One string for each row, one character for each cell, as in the world's own file."""
    look: Int64[Tensor, "M rows cols"]
    """What each cell looks like in each mode, an index into `LOOKS`: a key that was taken leaves a floor."""
    cell: Int64[Tensor, "S 2"]
    """Row and column of each state. Several states may share a cell."""
    mode: Int64[Tensor, "S"]
    """The mode of each state, from 0, the first of an episode where there is but one."""
    modes: tuple[str, ...] = ("",)
    """Each mode in words: "", "red key", "red door open", "cue north"."""
    badges: Float32[Tensor, "S V"] | None = None
    """What is seen besides the map, 0 ... 1: the share of a colour's keys in hand, a cue where it is shown."""
    badge_names: tuple[str, ...] = ()
    """A name for each of the V badges."""
    wind: tuple[int, ...] = ()
    """Cells upwards that a move is blown when it leaves each column; () where there is no wind."""
    alike: Int64[Tensor, "S"] | None = None
    """For each state the first state that looks just like it; None: every state looks different."""

    @property
    def rows(self) -> int:
        return self.look.shape[1]

    @property
    def cols(self) -> int:
        return self.look.shape[2]

    @cached_property
    def states(self) -> Int64[Tensor, "M rows cols"]:
        """The state of each cell in each mode, -1 where there is none."""
        table = torch.full(self.look.shape, -1)
        table[self.mode, self.cell[:, 0], self.cell[:, 1]] = torch.arange(len(self.cell))
        return table

    @property
    def state(self) -> Int64[Tensor, "rows cols"]:
        """The state of each cell in mode 0, -1 in walls."""
        return self.states[0]

    def shows(self, look: str, mode: int = 0) -> Bool[Tensor, "rows cols"]:
        """Which cells look like `look`, one of `LOOKS`."""
        return self.look[mode] == LOOKS.index(look)
