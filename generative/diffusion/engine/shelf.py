"""All the solver tables of an engine as one, so that every slot may stand at a row of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from generative.diffusion.engine import learned
from generative.diffusion.solvers.table import TENSORS, SolverTable, concatenate, idle

ROOM = 4096
"""Rows there is room for at first: 200 bytes each, and every doubling means new tensors, for which a compiled or
captured turn has to be made anew."""


class Shelf:
    """Tables one after another in tensors with room for more; row 0 is that of an idle slot.

    Args:
        registers: of every table, those with fewer being padded.
        device: where they are run.
        dtype: floating type they are run in; they are compiled in float64.
        room: rows there is room for at first.
    """

    def __init__(self, registers: int, device: torch.device, dtype: torch.dtype, room: int = ROOM) -> None:
        self.registers, self.device, self.dtype = registers, device, dtype
        self.used = 1  # rows
        self.tables = idle(registers).to(device, dtype).rows(torch.zeros(room, dtype=torch.int64, device=device))
        self.after: Float[Tensor, "2 room"] = torch.zeros(2, room, device=device, dtype=dtype)
        """(alpha, sigma) of the level after each row; 0 where a solver does not say."""
        self.spread: Float[Tensor, "room"] = torch.zeros(room, device=device, dtype=dtype)
        """Of a learned variance at each row (see `learned`)."""
        self.first_row: dict[SolverTable, int] = {}

    def place(self, table: SolverTable) -> int:
        """The row at which this table begins; it is put there when it is new."""
        if table not in self.first_row:
            while self.used + len(table) > len(self.tables):  # what stands in the new half is written over
                self.tables = concatenate([self.tables, self.tables])
                self.after = torch.cat([self.after, self.after], dim=1)
                self.spread = torch.cat([self.spread, self.spread])
            rows = slice(self.used, self.used + len(table))
            padded = table.padded(self.registers)
            for name in TENSORS:
                getattr(self.tables, name)[rows] = getattr(padded, name).to(self.device, self.dtype)
            self.after[:, rows] = torch.stack(table.after).nan_to_num(0).to(self.device, self.dtype)
            self.spread[rows] = learned.spread(table).to(self.device, self.dtype)
            self.first_row[table], self.used = self.used, rows.stop
        return self.first_row[table]

    def tensors(self) -> dict[str, Tensor]:
        """All that a step reads of it, by name."""
        return {"after": self.after, "spread": self.spread} | {name: getattr(self.tables, name) for name in TENSORS}

    def made_of(self, tensors: Mapping[str, Tensor]) -> Shelf:
        """The same shelf with these in place of its tensors."""
        made = copy.copy(self)
        parts: dict[str, Any] = {name: tensors[name] for name in TENSORS}
        made.tables = replace(self.tables, **parts)
        made.after, made.spread = tensors["after"], tensors["spread"]
        return made
