"""Parallel Q-networks: no replay, no target network, many worlds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from backbones import cnn
from envs.gymworlds import GymWorld
from envs.world import World
from rl.deep.pqn import PQN
from rl.recipe import Recipe, gamma_of, network_for, replica_seeds, shape_of


@dataclass(frozen=True)
class PQNConfig:
    """Parallel Q-network (Gallici et al. 2024); take many worlds."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and is harder to learn."""
    observation: str = "one-hot"
    """What the agent sees of a world that is a table: one-hot, coordinates, or one of planes, window-5 and rgb, which a
    CNN reads. Other worlds show what they show."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the perceptron's hidden layers, all layer-normalised; a CNN has its own. Wider fits more and costs
    more."""
    lam: float = 0.65
    """How far returns look along a rollout, in [0, 1]. Larger learns faster of what lies far ahead, from more chance.
    """
    rollout: int = 32
    """Steps of each world between two rounds of learning. Larger: longer returns, and targets that change less often.
    """
    epochs: int = 2
    """Times that each step is learnt from. Larger learns more from each, and overfits it sooner."""
    minibatches: int = 8
    """Parts that an epoch falls into, an update each. Larger: more updates, each of fewer steps."""
    learning_rate: float = 1e-3
    """RAdam's step size at first. Larger learns faster until it diverges."""
    final_learning_rate: float = 1e-5
    """RAdam's step size in the end. Smaller settles on one policy; larger goes on learning."""
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


def normalised(shape: tuple[int, ...], hidden: tuple[int, ...], actions: int) -> Callable[[], nn.Module]:
    """What constructs a network that reads `shape`, with layer normalisation throughout."""
    if len(shape) != 3:
        return network_for(shape, hidden, actions, norm=True)
    layers, width = (cnn.ATARI, 512) if min(shape[1:]) >= 36 else (cnn.GRID, 128)
    return lambda: cnn.CNN(shape, layers, [width], actions, norm=True)


def build_pqn(
    config: PQNConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> PQN:
    """R parallel Q-networks for `world`."""
    shape = shape_of(config, world)
    return PQN(
        normalised(shape, config.hidden, world.actions),
        shape,
        replica_seeds(seed, replicas),
        gamma=gamma_of(config, world),
        lam=config.lam,
        rollout=config.rollout,
        epochs=config.epochs,
        minibatches=config.minibatches,
        learning_rate=(config.learning_rate, config.final_learning_rate),
        learning_rate_steps=config.learning_rate_steps,
        epsilon=(config.epsilon, config.final_epsilon),
        epsilon_steps=config.exploration_steps,
        clip=config.clip,
        device=device,
    )


AGENTS: dict[str, Recipe] = {"pqn": Recipe(PQNConfig, build_pqn)}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}
