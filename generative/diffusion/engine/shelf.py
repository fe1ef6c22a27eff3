"""All the solver tables of an engine as one, so that every slot may stand at a row of its own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from generative.diffusion.solvers.table import SolverTable, concatenate, idle


class Shelf:
    """Tables one after another; row 0 is that of an idle slot.

    Args:
        registers: of every table, those with fewer being padded.
        device: where they are run.
        dtype: floating type they are run in; they are compiled in float64.
    """

    def __init__(self, registers: int, device: torch.device, dtype: torch.dtype) -> None:
        self.registers, self.device, self.dtype = registers, device, dtype
        self.tables = idle(registers).to(device, dtype)
        self.after: Float[Tensor, "2 rows"] = torch.zeros(2, 1, device=device, dtype=dtype)
        """(alpha, sigma) of the level after each row; 0 where a solver does not say."""
        self.first_row: dict[SolverTable, int] = {}

    def place(self, table: SolverTable) -> int:
        """The row at which this table begins; it is put there when it is new."""
        if table not in self.first_row:
            self.first_row[table] = len(self.tables)
            self.tables = concatenate([self.tables, table.padded(self.registers).to(self.device, self.dtype)])
            after = torch.stack(table.after).nan_to_num(0).to(self.device, self.dtype)
            self.after = torch.cat([self.after, after], dim=1)
        return self.first_row[table]
