"""What a grid remembers besides the cell one stands on: keys taken, doors open, and the cue of the episode.

A *memory* says which key cells are taken and which door cells are open. No colour ever has more doors open than keys
taken; the difference is in hand. A *mode* is a memory and a cue, numbered memory by memory: mode = memory * Q + cue,
with Q cues (1 where there are none). Mode 0 begins: nothing taken, nothing open, the first cue.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Bool, Int64

from envs.gridworld.grid import Grid
from envs.gridworld.ground import Ground

MOST = 12  # key and door cells on a map: up to 2510 memories, of six keys and six doors


@dataclass(frozen=True, eq=False)
class Memory:
    """The memories of a grid: W of them, over n cells with a key or a door."""

    grid: Grid
    own: Int64[np.ndarray, "C"]
    """Kind of each cell that is no wall, as it is drawn."""
    spot: Int64[np.ndarray, "n"]
    """The cells with a key or a door, as numbers in map order among those."""
    colour: tuple[str, ...]
    """Of each, the colour of its key or door."""
    door: Bool[np.ndarray, "n"]
    """Of each, whether it is a door."""

    @classmethod
    def of(cls, grid: Grid, ground: Ground) -> Memory:
        """What is to be remembered on that map."""
        kinds = list(grid.kinds.values())
        spot = np.flatnonzero(np.isin(ground.own, [i for i, kind in enumerate(kinds) if kind.key or kind.door]))
        held = [kinds[i] for i in ground.own[spot]]
        door = np.array([bool(kind.door) for kind in held], np.bool_)
        return cls(grid, ground.own, spot, tuple(kind.key or kind.door for kind in held), door)

    @cached_property
    def used(self) -> Bool[np.ndarray, "W n"]:
        """Which cells each memory has taken or opened; those with fewer come first."""
        able = np.array(list(product((True, False), repeat=len(self.spot))), np.bool_)  # [2^n, n]
        hand = np.stack([self._keys(able, colour) for colour in self.colours] or [np.zeros(len(able))])
        able = able[(hand >= 0).all(0)]
        return able[np.argsort(able.sum(1), kind="stable")]

    @property
    def colours(self) -> tuple[str, ...]:
        """Each colour once."""
        return tuple(dict.fromkeys(self.colour))

    @property
    def cues(self) -> int:
        """Q, 1 where there is no cue."""
        return max(1, len(self.grid.cues))

    @property
    def modes(self) -> int:
        """M = W Q."""
        return len(self.used) * self.cues

    def kinds(self, memory: int) -> Int64[np.ndarray, "C"]:
        """The kind of each cell: a taken key and an open door are floor in every respect."""
        kinds = self.own.copy()
        kinds[self.spot[self.used[memory]]] = list(self.grid.kinds).index("floor")
        return kinds

    def shut(self, memory: int) -> Int64[np.ndarray, "_"]:
        """Cells with a closed door for which no key is in hand."""
        lacking = [colour for colour in self.colours if not self.in_hand(colour)[memory]]
        return self.spot[self.door & ~self.used[memory] & np.isin(self.colour, lacking)]

    def after(self, memory: int) -> Int64[np.ndarray, "n"]:
        """The memory after entering each of the n cells; what it says of shut doors means nothing."""
        entered = self.used[memory] | np.eye(len(self.spot), dtype=np.bool_)  # [n, n]
        return np.array([self._number.get(tuple(used), memory) for used in entered.tolist()], np.int64)

    def in_hand(self, colour: str) -> Int64[np.ndarray, "W"]:
        """Keys of that colour taken and not yet used up, in each memory."""
        return self._keys(self.used, colour)

    def count(self, colour: str, *, doors: bool) -> int:
        """How many keys or doors of that colour are on the map."""
        return sum(c == colour and bool(d) == doors for c, d in zip(self.colour, self.door, strict=True))

    def labels(self) -> tuple[str, ...]:
        """Each mode in words, as `Layout.modes`: "", "red key", "red door open", "cue north"."""
        cues = [f"cue {name}" for name in self.grid.cues] or [""]
        return tuple(", ".join(filter(None, (self._words(w), cue))) for w in range(len(self.used)) for cue in cues)

    def _keys(self, used: Bool[np.ndarray, "W n"], colour: str) -> Int64[np.ndarray, "W"]:
        own = np.array([c == colour for c in self.colour], np.bool_)
        return used[:, own & ~self.door].sum(1) - used[:, own & self.door].sum(1)

    @cached_property
    def _number(self) -> dict[tuple[bool, ...], int]:
        return {tuple(used): w for w, used in enumerate(self.used.tolist())}

    def _words(self, memory: int) -> str:
        keys, doors, seen = [], [], Counter[tuple[str, bool]]()
        for colour, door, used in zip(self.colour, self.door.tolist(), self.used[memory].tolist(), strict=True):
            seen[colour, door] += 1
            alone = self.count(colour, doors=door) == 1
            number = "" if alone else f" {seen[colour, door]}"
            if used and door:
                doors.append(f"{colour} door{number} open")
            elif used and not (alone and self.in_hand(colour)[memory] == 0):  # where it is, the open door says
                keys.append(f"{colour} key{number}")
        return ", ".join([*keys, *doors])
