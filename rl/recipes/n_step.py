"""Tabular control from n steps: n-step Sarsa, n-step Expected Sarsa, tree backup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rl.recipe import Recipe
from rl.recipes.tabular import TabularConfig, recipe
from rl.tabular.n_step import NStepExpectedSarsa, NStepSarsa
from rl.tabular.tree_backup import TreeBackup


@dataclass(frozen=True)
class NStepSarsaConfig(TabularConfig):
    """n-step Sarsa on a table (Sutton & Barto 2018, sec. 7.2); for worlds that are tables."""

    n: int = 4
    """Rewards before the present estimate. More carry news further and bring more chance with them."""


@dataclass(frozen=True)
class NStepExpectedSarsaConfig(TabularConfig):
    """n-step Expected Sarsa on a table (Sutton & Barto 2018, sec. 7.2); for worlds that are tables."""

    n: int = 4
    """Rewards before the present estimate. More carry news further and bring more chance with them."""


@dataclass(frozen=True)
class TreeBackupConfig(TabularConfig):
    """n-step tree backup for the greedy policy (Precup, Sutton & Singh 2000); for worlds that are tables."""

    n: int = 4
    """Steps that the tree is deep. More carry news further, as far as the greedy policy would have done the same."""


AGENTS: dict[str, Recipe] = {
    "n-step-sarsa": recipe("n-step-sarsa", NStepSarsa, NStepSarsaConfig),
    "n-step-expected-sarsa": recipe("n-step-expected-sarsa", NStepExpectedSarsa, NStepExpectedSarsaConfig),
    "tree-backup": recipe("tree-backup", TreeBackup, TreeBackupConfig),
}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    (name, "zhao-5x5"): ({"omega": 0.0, "alpha": 0.5}, {"steps": 15_000, "worlds": 10}) for name in AGENTS
}
