"""stable-baselines3's algorithms by name, as `qx train sb3:dqn WORLD` takes them: their settings, and what builds them.

The defaults are those of rl-baselines3-zoo for CartPole-v1 (Raffin 2020) where it has some, else the library's own.
Step sizes and clip ranges are constant here, where the zoo lets PPO's fall to zero. The library is imported only where
one is built: it takes a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from envs.gymworlds import GymWorld
from envs.world import World
from rl.recipe import Recipe
from rl.types import Agent

PREFIX = "sb3:"


@dataclass(frozen=True)
class Sb3Config:
    """What every algorithm of stable-baselines3 takes here."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and is harder to learn."""
    observation: str = "one-hot"
    """What the agent sees of a world that is a table: index, one-hot, coordinates, planes, window-5, rgb. Other worlds
    show what they show."""
    backbone: Literal["auto", "mlp", "cnn", "impala"] = "auto"
    """Our network that reads the observation: a perceptron of two hidden layers of 64, a CNN, or IMPALA's; auto takes
    the CNN for pictures and planes."""
    features: int = 64
    """Numbers that the backbone hands to the heads for actions and values. Larger tells them more and costs more."""


@dataclass(frozen=True)
class Sb3DQNConfig(Sb3Config):
    """stable-baselines3's DQN: without double estimation."""

    learning_rate: float = 2.3e-3
    """Adam's step size. Larger learns faster until it diverges."""
    batch_size: int = 64
    """Transitions in an update. Larger: smoother gradients, more work."""
    capacity: int = 100_000
    """Transitions remembered. Larger forgets later."""
    learning_starts: int = 1_000
    """Steps before the first update. Larger begins with more varied memories."""
    train_every: int = 256
    """Steps between two rounds of updates. Larger: fewer updates for each step."""
    gradient_steps: int = 128
    """Updates in a round. Larger learns more from each step, and overfits old ones sooner."""
    target_every: int = 10
    """Steps between two copies to the target network, at least a round apart. Larger is stabler and slower."""
    exploration_steps: int = 8_000
    """Steps over which the chance of a random action falls from 1. Larger explores longer."""
    final_epsilon: float = 0.04
    """Chance of a random action in the end. Larger goes on exploring."""


@dataclass(frozen=True)
class Sb3PPOConfig(Sb3Config):
    """stable-baselines3's PPO."""

    learning_rate: float = 1e-3
    """Adam's step size. Larger learns faster until the policy collapses."""
    rollout: int = 32
    """Steps of each world between two rounds of updates. Larger: surer estimates, fewer rounds."""
    batch_size: int = 256
    """Transitions in an update. Larger: smoother gradients, fewer updates."""
    epochs: int = 20
    """Passes over a rollout. Larger learns more from it, and strays further from what gathered it."""
    lam: float = 0.8
    """Lambda of the advantages. Larger trusts rewards more and the value network less."""
    entropy: float = 0.0
    """Weight of the policy's entropy. Larger explores more."""
    clip_range: float = 0.2
    """How far a probability's ratio may move in a round. Larger learns faster and less safely."""


@dataclass(frozen=True)
class Sb3A2CConfig(Sb3Config):
    """stable-baselines3's A2C."""

    learning_rate: float = 7e-4
    """RMSProp's step size. Larger learns faster until the policy collapses."""
    rollout: int = 5
    """Steps of each world between two updates. Larger: surer estimates, fewer updates."""
    entropy: float = 0.0
    """Weight of the policy's entropy. Larger explores more."""


def build(
    config: Sb3Config, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> Agent:
    """R policies of the algorithm whose config this is, untrained."""
    from rl.sb3_agent import untrained

    return untrained(config, world, replicas, seed, device)


LEARNERS: dict[str, Recipe] = {
    f"{PREFIX}dqn": Recipe(Sb3DQNConfig, build),
    f"{PREFIX}ppo": Recipe(Sb3PPOConfig, build),
    f"{PREFIX}a2c": Recipe(Sb3A2CConfig, build),
}

USUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    f"{PREFIX}dqn": ({}, {"worlds": 1}),
    f"{PREFIX}ppo": ({}, {"worlds": 8}),
    f"{PREFIX}a2c": ({}, {"worlds": 8}),
}
"""What differs on every world from the defaults of the config, and of `TrainConfig`."""
