"""What a maker takes and gives: the words between `envs.makers` and those who make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from envs.layout import Layout
from envs.mdp import TabularMDP


class Parameter(NamedTuple):
    """A number that a maker takes."""

    default: float
    low: float
    high: float
    whole: bool = False
    """Only whole numbers; the maker gets an int."""


@dataclass(frozen=True)
class Made:
    """All that a table maker makes of a world."""

    mdp: TabularMDP
    layout: Layout
    action_names: tuple[str, ...]
