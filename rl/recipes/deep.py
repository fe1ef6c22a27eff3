"""Deep Q-networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from envs.gymworlds import GymWorld
from envs.world import World
from rl.deep import dqn
from rl.deep.dqn import DQN
from rl.recipe import Recipe, gamma_of, network_for, replica_seeds, shape_of


@dataclass(frozen=True)
class DQNConfig:
    """Deep Q-network (Mnih et al. 2015), by default double (van Hasselt et al. 2016)."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and is harder to learn."""
    loss: Literal["double", "single"] = "double"
    """Who chooses the next action of the target: the online network (double), or the target network itself, which
    overestimates."""
    observation: str = "one-hot"
    """What the agent sees of a world that is a table: one-hot, coordinates, or one of planes, window-5 and rgb, which a
    CNN reads. Other worlds show what they show."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the perceptron's hidden layers; a CNN has its own. Wider fits more and costs more."""
    norm: bool = True
    """Layer-normalise the perceptron's hidden layers: values follow the target network without running away
    (Gallici et al. 2024). Off is the plain network."""
    learning_rate: float = 1e-3
    """Adam's step size at first. Larger learns faster until it diverges."""
    final_learning_rate: float = 1e-4
    """Adam's step size in the end. Smaller settles on one policy; larger goes on learning."""
    learning_rate_steps: int = 50_000
    """Steps over which the step size goes from the one to the other. Larger settles later."""
    batch_size: int = 64
    """Transitions in an update. Larger: smoother gradients, more work."""
    capacity: int = 50_000
    """Transitions remembered. Larger forgets later, and learns more from the past."""
    learning_starts: int = 1_000
    """Steps before the first update. Larger begins with more varied memories."""
    train_every: int = 16
    """Steps between two rounds of updates. Larger: fewer updates for each step."""
    gradient_steps: int = 8
    """Updates in a round. Larger learns more from each step, and overfits old ones sooner."""
    target_every: int = 100
    """Updates between two copies to the target network. Larger is stabler and slower."""
    epsilon: float = 1.0
    """Chance of a random action at first. Larger explores more."""
    final_epsilon: float = 0.05
    """Chance of a random action in the end. Larger goes on exploring."""
    exploration_steps: int = 10_000
    """Steps over which the chance falls from the one to the other. Larger explores longer."""
    clip: float = 10.0
    """Largest norm of a replica's gradient. Smaller is safer and slower."""


LOSSES = {"double": dqn.double_dqn_loss, "single": dqn.dqn_loss}


def build_dqn(
    config: DQNConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> DQN:
    """R deep Q-networks for `world`."""
    shape = shape_of(config, world)
    return DQN(
        network_for(shape, config.hidden, world.actions, norm=config.norm),
        shape,
        replica_seeds(seed, replicas),
        gamma=gamma_of(config, world),
        loss=LOSSES[config.loss],
        learning_rate=(config.learning_rate, config.final_learning_rate),
        learning_rate_steps=config.learning_rate_steps,
        batch_size=config.batch_size,
        capacity=config.capacity,
        learning_starts=config.learning_starts,
        train_every=config.train_every,
        gradient_steps=config.gradient_steps,
        target_every=config.target_every,
        epsilon=(config.epsilon, config.final_epsilon),
        epsilon_steps=config.exploration_steps,
        clip=config.clip,
        device=device,
    )


AGENTS: dict[str, Recipe] = {"dqn": Recipe(DQNConfig, build_dqn)}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    # Values near 100 are reached one step of horizon a target copy: so copies are frequent, large batches and the norm
    # keep the fit between two of them, and a step size that falls to almost nothing settles on one policy.
    ("dqn", "CartPole-v1"): (
        {
            "batch_size": 256,
            "target_every": 25,
            "capacity": 20_000,
            "final_epsilon": 0.04,
            "exploration_steps": 8_000,
            "final_learning_rate": 2e-5,
            "learning_rate_steps": 40_000,
        },
        {"steps": 40_000, "worlds": 16},
    ),
    ("dqn", "FrozenLake-v1"): (
        {"learning_rate_steps": 30_000, "final_learning_rate": 1e-4},
        {"steps": 30_000},
    ),
    ("dqn", "zhao-5x5"): ({"exploration_steps": 4_000, "learning_rate_steps": 10_000}, {"steps": 10_000}),
}
