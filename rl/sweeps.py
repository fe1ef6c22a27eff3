"""Value iteration's sweeps: v <- max_a q, all states at once, over and over.

A sweep changes nothing in a state whose successors did not change in the sweep before. So where few states changed,
only their predecessors are backed up; the values are, bit for bit, those of sweeping everything. A million states of
which a thin front is in motion (the news of a goal on its way through a maze) then cost as much as the front is long.
"""

from __future__ import annotations

import numpy as np

from rl.backup import Backup, Floats, States

EPS = float(np.finfo(np.float64).eps)
FEW = 10  # of so many states one changed: then it is cheaper to follow the changes than to sweep everything


class Sweeps:
    """Value iteration from zero, one sweep after another."""

    def __init__(self, backup: Backup) -> None:
        self.backup = backup
        self.count = 0
        self.backups = 0
        """Values q(s, a) computed so far."""
        self.values: Floats = np.zeros(len(backup.reward))
        """v after `count` sweeps, [S]."""
        self.changed: States = np.arange(len(self.values))
        """The states that the last sweep changed, [m]."""
        self.step: Floats = self.values
        """By how much, [m]."""
        self._scale = 0.0

    @property
    def change(self) -> float:
        """The largest change of a value in the last sweep."""
        return float(np.abs(self.step).max(initial=0.0))

    def sweep(self) -> None:
        """One exact synchronous sweep."""
        if self.count == 0 or len(self.changed) * FEW > len(self.values):
            best = self.backup.best(self.values)
            self.backups += self.backup.reward.size
            step = best - self.values
            self.values, self.changed = best, np.flatnonzero(step)
            self.step = step[self.changed]
            self._scale = float(np.abs(best).max())
        else:
            touched = self.backup.predecessors(self.changed)
            best = self.backup.rows(touched, self.values).max(1, initial=-np.inf)
            self.backups += len(touched) * self.backup.reward.shape[1]
            step = best - self.values[touched]
            self.values[touched] = best
            self.changed, self.step = touched[step != 0], step[step != 0]
            self._scale = max(self._scale, float(np.abs(best).max(initial=0.0)))
        self.count += 1

    def at_rest(self) -> bool:
        """The last changes were within the rounding of the largest value."""
        if self.change > 2 * EPS * self._scale:  # while few are swept, the scale is an upper bound
            return False
        return self.change <= 2 * EPS * float(np.abs(self.values).max())

    def settled(self, tolerance: float) -> bool:
        """No value changed by more than `tolerance` of itself, or of the rounding of what it is summed from.

        A value far from every reward is small, and right only when it is right to some of its own digits.
        """
        moving = np.flatnonzero(np.abs(self.step) > tolerance * np.abs(self.values[self.changed]))
        for some in (moving[:1], moving):  # mostly the first one is answer enough
            rounding = 4 * EPS * self.backup.magnitude(self.changed[some], self.values)
            if (np.abs(self.step[some]) > rounding).any():
                return False
        return True
