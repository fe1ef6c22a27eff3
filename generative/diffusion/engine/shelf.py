"""The solver tables of an engine as one, so that every slot may stand at a row of its own.

There is room for so many rows and no more: what a turn reads never changes its place or size, so a turn that was
compiled or captured stays right however long the engine runs. A table that nobody runs makes room for a new one, the
one that was asked for longest ago first. A table's rows need not be neighbours, since every row says which is next;
so whatever is free can be used.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from generative.diffusion.engine import learned
from generative.diffusion.engine.slots import sent
from generative.diffusion.solvers.table import TENSORS, SolverTable, idle

ROOM = 16_384  # sixteen solvers of 1000 steps at a time; 200 bytes a row in float32


class Shelf:
    """Room for rows of tables; row 0, which is not counted, is that of an idle slot.

    Args:
        registers: of every table, those with fewer being padded.
        device: where they are run.
        dtype: floating type they are run in; they are compiled in float64.
        room: rows of all tables together.
    """

    def __init__(self, registers: int, device: torch.device, dtype: torch.dtype, room: int = ROOM) -> None:
        self.registers, self.device, self.dtype, self.room = registers, device, dtype, room
        nowhere = torch.zeros(1 + room, dtype=torch.int64, device=device)
        self.tables = idle(registers).to(device, dtype).rows(nowhere)
        self.next: Int64[Tensor, "rows"] = nowhere
        """The row after each; 0 after a table's last, and after itself."""
        self.after: Float[Tensor, "2 rows"] = torch.zeros(2, 1 + room, device=device, dtype=dtype)
        """(alpha, sigma) of the level after each row; 0 where a solver does not say."""
        self.spread: Float[Tensor, "rows"] = torch.zeros(1 + room, device=device, dtype=dtype)
        """Of a learned variance at each row (see `learned`)."""
        self.free = list(range(room, 0, -1))
        self.rows: dict[SolverTable, list[int]] = {}  # where each stands; that asked for longest ago comes first

    def place(self, table: SolverTable, held: Collection[SolverTable]) -> int | None:
        """The row at which this table begins; it is put there when it is new.

        None when those in `held`, which stay where they are, leave too little room for it.
        """
        rows = self.rows.pop(table, None)
        if rows is None:
            if not self._clear(len(table), held):
                return None
            rows = [self.free.pop() for _ in range(len(table))]
            self._write(table, rows)
        self.rows[table] = rows
        return rows[0]

    def tensors(self) -> dict[str, Tensor]:
        """All that a step reads of it, by name."""
        beside = {"after": self.after, "spread": self.spread, "next": self.next}
        return beside | {name: getattr(self.tables, name) for name in TENSORS}

    def made_of(self, tensors: Mapping[str, Tensor]) -> Shelf:
        """The same shelf with these in place of its tensors."""
        made = copy.copy(self)
        parts: dict[str, Any] = {name: tensors[name] for name in TENSORS}
        made.tables = replace(self.tables, **parts)
        made.after, made.spread, made.next = tensors["after"], tensors["spread"], tensors["next"]
        return made

    def _clear(self, count: int, held: Collection[SolverTable]) -> bool:
        """Whether so many rows are free now, after taking away as many tables as need be."""
        unused = [table for table in self.rows if table not in held]
        if len(self.free) + sum(map(len, unused)) < count:
            return False
        for table in unused:
            if len(self.free) >= count:
                break
            self.free += self.rows.pop(table)[::-1]
        return True

    def _write(self, table: SolverTable, rows: list[int]) -> None:
        """Copy it to these rows. The device comes to it after the turns that were asked of it before."""
        index, padded = sent(torch.tensor(rows), self.device), table.padded(self.registers)

        def number(tensor: Tensor) -> Tensor:
            return sent(tensor.to(self.dtype), self.device)

        for name in TENSORS:
            getattr(self.tables, name)[index] = number(getattr(padded, name))
        self.after[:, index] = number(torch.stack(table.after).nan_to_num(0))
        self.spread[index] = number(learned.spread(table))
        self.next[index] = sent(torch.tensor([*rows[1:], 0]), self.device)
