"""Deep Q-networks that remember: recurrent networks, and a Transformer over a window of history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch

from envs.gymworlds import GymWorld
from envs.world import World
from rl.deep.drqn import DRQN
from rl.deep.sequence_replay import room
from rl.deep.sequences import Memoryless, Recurrent, SequenceNetwork, Windowed
from rl.recipe import AgentError, Recipe, network_for, replica_seeds, shape_of
from rl.recipes.schedules import QConfig, scheduled


@dataclass(frozen=True)
class DRQNConfig(QConfig):
    """Deep Q-network over histories (Hausknecht & Stone 2015), replayed as in R2D2 (Kapturowski et al. 2019)."""

    memory: Literal["gru", "lstm", "transformer", "none"] = "gru"
    """What reads the history: a recurrent network (gru, lstm), a Transformer over the last steps, or none, which sees
    the present only."""
    width: int = 32
    """Features of the network, and of its memory. Wider fits and remembers more, and costs more."""
    window: int = 32
    """Steps that a layer of the Transformer sees. Larger remembers longer and costs more."""
    layers: int = 1
    """Layers of the Transformer. More reach further back, each by a window, and combine more."""
    lam: float = 0.9
    """How far returns look along a sequence, in [0, 1]. Larger learns faster of what lies far ahead, from more chance.
    """
    batch_size: int = 16
    """Sequences in an update. Larger: smoother gradients, more work."""
    burn_in: int = 8
    """Steps before those learnt from, which only bring the memory up to date. Larger trusts stored memories less."""
    length: int = 24
    """Steps of a sequence that are learnt from. Larger learns to remember for longer, and costs more."""
    stride: int = 8
    """Steps between the starts of two sequences. Larger stores fewer memories, and offers fewer sequences."""
    capacity: int = 50_000
    """Steps remembered, in all worlds of a replica. Larger forgets later, and learns more from the past."""
    learning_starts: int = 1_000
    """Steps before the first update. Larger begins with more varied memories."""
    train_every: int = 64
    """Steps between two rounds of updates. Larger: fewer updates for each step."""
    gradient_steps: int = 2
    """Updates in a round. Larger learns more from each step, and overfits old ones sooner."""
    target_every: int = 5
    """Updates between two copies to the target network. Larger is stabler and slower."""
    exploration_steps: int = 20_000
    """Steps over which the chance falls from the one to the other. Larger explores longer."""


def network_of(config: DRQNConfig, world: World | GymWorld) -> Callable[[], SequenceNetwork]:
    """What constructs the network that `config` asks for."""
    shape = shape_of(config, world)
    numbers: dict[str, Any] = {
        "eye": network_for(shape, (), config.width),
        "shape": shape,
        "width": config.width,
        "actions": world.actions,
    }
    kinds: dict[str, Callable[[], SequenceNetwork]] = {
        "gru": partial(Recurrent, **numbers, kind="gru", span=config.length),
        "lstm": partial(Recurrent, **numbers, kind="lstm", span=config.length),
        "transformer": partial(Windowed, **numbers, window=config.window, layers=config.layers),
        "none": partial(Memoryless, **numbers),
    }
    return kinds[config.memory]


def build_drqn(
    config: DRQNConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> DRQN:
    """R deep Q-networks that read histories, for `world`."""
    return DRQN(
        network_of(config, world),
        replica_seeds(seed, replicas),
        lam=config.lam,
        batch_size=config.batch_size,
        burn_in=config.burn_in,
        length=config.length,
        stride=config.stride,
        capacity=config.capacity,
        learning_starts=config.learning_starts,
        train_every=config.train_every,
        gradient_steps=config.gradient_steps,
        target_every=config.target_every,
        **scheduled(config, world),
        device=device,
    )


def has_room(config: DRQNConfig, worlds: int) -> None:
    """AgentError where a world's share of what is remembered is shorter than a sequence and a stride."""
    try:
        room(config.capacity, worlds, config.burn_in + config.length + 1, config.stride)
    except ValueError as error:
        raise AgentError(f"--capacity {config.capacity}: {error}") from None


AGENTS: dict[str, Recipe] = {"drqn": Recipe(DRQNConfig, build_drqn, fits=has_room)}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}
