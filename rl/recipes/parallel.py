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
from rl.recipe import Backbone, Recipe, network_for, replica_seeds, shape_of
from rl.recipes.rollouts import enough_steps
from rl.recipes.schedules import QConfig, scheduled


@dataclass(frozen=True)
class PQNConfig(QConfig):
    """Parallel Q-network (Gallici et al. 2024); take many worlds."""

    backbone: Backbone = "auto"
    """The network: a perceptron or a CNN, layer-normalised throughout; or, without a norm, the residual one of IMPALA,
    or one that plans over the planes of a grid. auto takes the CNN where the observation is a picture."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the perceptron's hidden layers, all layer-normalised; a CNN has its own. Wider fits more and costs
    more."""
    final_learning_rate: float = 1e-5
    """The optimiser's step size in the end. Smaller settles on one policy; larger goes on learning."""
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


def normalised(
    shape: tuple[int, ...], hidden: tuple[int, ...], actions: int, backbone: Backbone = "auto"
) -> Callable[[], nn.Module]:
    """What constructs a network that reads `shape`, with layer normalisation throughout where it has any."""
    if len(shape) != 3 or backbone not in ("auto", "cnn"):
        return network_for(shape, hidden, actions, norm=True, backbone=backbone)
    layers, width = (cnn.ATARI, 512) if min(shape[1:]) >= 36 else (cnn.GRID, 128)
    return lambda: cnn.CNN(shape, layers, [width], actions, norm=True)


def build_pqn(
    config: PQNConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> PQN:
    """R parallel Q-networks for `world`."""
    shape = shape_of(config, world)
    return PQN(
        normalised(shape, config.hidden, world.actions, config.backbone),
        shape,
        replica_seeds(seed, replicas),
        lam=config.lam,
        rollout=config.rollout,
        epochs=config.epochs,
        minibatches=config.minibatches,
        **scheduled(config, world),
        device=device,
    )


AGENTS: dict[str, Recipe] = {"pqn": Recipe(PQNConfig, build_pqn, fits=enough_steps)}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    # Two steps in three go where they were meant, and the best two actions differ by as little as 3e-5: so very many
    # steps, returns of one of them (longer ones are biased by exploring), and a step size that falls to nothing.
    ("pqn", "four-rooms"): (
        {
            "observation": "planes",
            "backbone": "mlp",
            "hidden": (64, 64),
            "lam": 0.0,
            "rollout": 8,
            "epochs": 1,
            "minibatches": 2,
            "learning_rate": 2e-3,
            "final_learning_rate": 1e-6,
            "learning_rate_steps": 3_000_000,
            "final_epsilon": 0.3,
            "exploration_steps": 500_000,
        },
        {"steps": 3_000_000, "worlds": 512, "report_every": 30_000},
    ),
}
