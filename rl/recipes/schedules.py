"""What every deep Q-network's config has: what it sees, its discount, and how its step size and its exploring fall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from envs.gymworlds import GymWorld
from envs.world import World
from rl.recipe import gamma_of


@dataclass(frozen=True)
class QConfig:
    """Learns action values with a network, and explores by chance."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and is harder to learn."""
    observation: str = "one-hot"
    """What the agent sees of a world that is a table: one-hot, coordinates, or one of planes, window-5 and rgb, which a
    CNN reads. Other worlds show what they show."""
    learning_rate: float = 1e-3
    """The optimiser's step size at first. Larger learns faster until it diverges."""
    final_learning_rate: float = 1e-4
    """Its step size in the end. Smaller settles on one policy; larger goes on learning."""
    learning_rate_steps: int = 50_000
    """Steps over which the step size goes from the one to the other. Larger settles later."""
    epsilon: float = 1.0
    """Chance of a random action at first. Larger explores more."""
    final_epsilon: float = 0.05
    """Chance of a random action in the end. Larger goes on exploring."""
    exploration_steps: int = 10_000
    """Steps over which the chance falls from the one to the other. Larger explores longer."""
    clip: float = 10.0
    """Largest norm of a replica's gradient. Smaller is safer and slower."""


def scheduled(config: QConfig, world: World | GymWorld) -> dict[str, Any]:
    """All of it but the observation, as the learners in `rl.deep` take it."""
    return {
        "gamma": gamma_of(config, world),
        "learning_rate": (config.learning_rate, config.final_learning_rate),
        "learning_rate_steps": config.learning_rate_steps,
        "epsilon": (config.epsilon, config.final_epsilon),
        "epsilon_steps": config.exploration_steps,
        "clip": config.clip,
    }
