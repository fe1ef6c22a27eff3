"""What rollouts that are learnt from in minibatches ask of the worlds."""

from __future__ import annotations

from typing import Any

from rl.recipe import AgentError


def enough_steps(config: Any, worlds: int) -> None:
    """AgentError for no minibatch, or more of them than a rollout of so many worlds has steps."""
    steps = config.rollout * worlds
    if not 1 <= config.minibatches <= steps:
        what = f"a rollout of {config.rollout} steps in {worlds} worlds has {steps}"
        raise AgentError(f"--minibatches {config.minibatches}: {what}; expected 1 to {steps}")
