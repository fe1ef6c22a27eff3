"""A shorter or a longer run than usual: what is scheduled in steps keeps its share of it."""

from __future__ import annotations

import dataclasses
from typing import Any

from rl.train import TrainConfig

SCHEDULES = {
    "exploration_steps": "exploration",
    "learning_rate_steps": "step size",
    "alpha_steps": "step size",
    "importance_steps": "importance",
}
"""The fields of an agent's config that say after how many steps a schedule ends, and what runs by it."""
OFF_POLICY = {"q-learning", "double-q-learning", "watkins-q-lambda", "dyna-q", "dyna-q-plus", "tree-backup"}
"""Tables that learn of the best policy from whatever is done: exploring teaches them, and the run's length is no reason
to do less of it. (On the cliff, 8,000 steps: 17 of 20 learners arrive as it is, and none with an exploration of 3,200
steps; with Sarsa, whose values are of what it does, none and 14.)"""
STILL = 0.4  # epsilon above which an end of the run is told of


def stretched(agent: str, config: Any, usual: TrainConfig, steps: int) -> Any:
    """The agent's config with every schedule as large a share of `steps` as it is of the usual length."""
    kept = {"exploration_steps"} if agent in OFF_POLICY else set()
    lengths = {name: getattr(config, name) for name in SCHEDULES if hasattr(config, name) and name not in kept}
    return dataclasses.replace(
        config, **{name: max(1, round(n * steps / usual.steps)) if n else 0 for name, n in lengths.items()}
    )


def told(config: Any, usual: Any, stretch: Any, steps: int) -> str:
    """What of a config is as it was stretched, in a line without what was asked for; empty where nothing is."""
    changed = {
        name: getattr(config, name)
        for name in SCHEDULES
        if hasattr(config, name) and getattr(config, name) == getattr(stretch, name) != getattr(usual, name)
    }
    over = [
        f"{SCHEDULES[name]} over the first {length:,}" if length < steps else f"{SCHEDULES[name]} over {length:,}"
        for name, length in changed.items()
    ]
    return f"{', '.join(over)} of {steps:,} steps: the usual share" if over else ""


def unfinished(config: Any, steps: int) -> float | None:
    """Epsilon at the end of so many steps, where it was to fall further and is still large; else None."""
    over, final = getattr(config, "exploration_steps", 0), getattr(config, "final_epsilon", 0.0)
    if steps >= over:
        return None
    first = getattr(config, "epsilon", 1.0)  # stable-baselines3's begins at 1
    epsilon = float(first + (final - first) * steps / over)
    return epsilon if epsilon > max(STILL, final) else None
