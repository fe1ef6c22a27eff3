"""The ways to an optimum that `qx solve --method` offers."""

from __future__ import annotations

from collections.abc import Callable

from envs.mdp import TabularMDP
from rl import dp
from rl.dp import Solution
from rl.prioritised import prioritised_sweeping
from rl.truncated import truncated_policy_iteration

METHODS: dict[str, tuple[str, str, Callable[[TabularMDP, float], Solution]]] = {
    "policy-iteration": ("policy iteration", "improvement", dp.policy_iteration),
    "prioritised": ("prioritised sweeping", "value moved", prioritised_sweeping),
    "truncated": ("truncated policy iteration", "improvement", truncated_policy_iteration),
    "value-iteration": ("value iteration", "sweep", dp.value_iteration),
}
"""Each with its name in full and what `Solution.iterations` counts."""


def told(method: str, found: Solution) -> str:
    """What was done, in words: "policy iteration, 3 improvements, 500 backups"."""
    name, counted, _ = METHODS[method]
    first, *rest = counted.split()
    plural = " ".join([first + "s" * (found.iterations != 1), *rest])
    return f"{name}, {found.iterations} {plural}, {found.backups} backups"
