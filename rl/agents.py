"""The agents there are, by name: a config for each, and how it becomes an agent on a given world.

A config is what a person may choose; it becomes command-line flags, and its docstrings their help. It ends here: an
agent itself takes plain numbers and functions. What can be derived is derived: the network from the shape of the
observation, the discount from the world.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from backbones import cnn
from backbones.mlp import MLP
from envs.gymworlds import GymWorld
from envs.types import Worlds
from envs.world import World
from lab import streams
from rl import dqn
from rl.dqn import DQN
from rl.td import QLearning
from rl.train import TrainConfig, world_keys
from rl.types import Agent


class AgentError(ValueError):
    """An agent that does not exist, or that cannot learn in this world."""


@dataclass(frozen=True)
class QLearningConfig:
    """Q-learning on a table (Watkins 1989); for worlds that are tables."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and learns more slowly."""
    alpha: float = 1.0
    """Step size of a pair's first update. Larger trusts new samples more."""
    omega: float = 0.6
    """The n-th update of a pair steps by alpha / n^omega. Larger averages out more chance, and is slower; 0 suits
    worlds without chance."""
    epsilon: float = 1.0
    """Chance of a random action at first. Larger explores more."""
    final_epsilon: float = 0.1
    """Chance of a random action in the end. Larger goes on exploring."""
    exploration_steps: int = 20_000
    """Steps over which the chance falls from the one to the other. Larger explores longer."""
    observation: str = "index"
    """What the agent sees: index, or state, which tells apart what looks alike. A table needs a number."""


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


def build_q_learning(
    config: QLearningConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> QLearning:
    """R tables for `world`. Raises AgentError where the world is no table, or is not seen as an index."""
    if not isinstance(world, World):
        raise AgentError(f"q-learning needs a world that is a table, and {world.name} is none: take dqn")
    if config.observation not in ("index", "state"):
        raise AgentError(f"q-learning cannot learn from {config.observation!r}: expected observation index or state")
    return QLearning(
        world.mdp.states,
        world.actions,
        replica_seeds(seed, replicas),
        gamma=world.discount if config.gamma is None else config.gamma,
        alpha=config.alpha,
        omega=config.omega,
        epsilon=(config.epsilon, config.final_epsilon),
        epsilon_steps=config.exploration_steps,
        device=device,
    )


def build_dqn(
    config: DQNConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> DQN:
    """R deep Q-networks for `world`."""
    shape = tuple(world.observe(config.observation).shape[1:]) if isinstance(world, World) else world.obs_shape
    return DQN(
        q_network(shape, config.hidden, world.actions, norm=config.norm),
        shape,
        replica_seeds(seed, replicas),
        gamma=world.discount if config.gamma is None else config.gamma,
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


AGENTS: dict[str, tuple[type[Any], Callable[..., Agent]]] = {
    "q-learning": (QLearningConfig, build_q_learning),
    "dqn": (DQNConfig, build_dqn),
}

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
    ("q-learning", "zhao-5x5"): ({"omega": 0.0}, {"steps": 15_000, "worlds": 10}),
    ("dqn", "zhao-5x5"): ({"exploration_steps": 4_000, "learning_rate_steps": 10_000}, {"steps": 10_000}),
}
"""(agent, world) -> what differs there from the defaults of the agent's config, and of `TrainConfig`."""


def defaults(agent: str, world: str) -> tuple[Any, TrainConfig]:
    """The configs that `agent` starts from on `world`. Raises AgentError for an unknown agent."""
    if agent not in AGENTS:
        near = difflib.get_close_matches(agent, AGENTS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AgentError(f"agent {agent!r} is unknown, expected one of {', '.join(AGENTS)}{hint}")
    ours, train = TUNED.get((agent, world), ({}, {}))
    return AGENTS[agent][0](**ours), TrainConfig(**train)


def simulate(
    config: QLearningConfig | DQNConfig,
    world: World | GymWorld,
    *,
    replicas: int,
    worlds: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Worlds:
    """The worlds that `replicas` agents of this config act in, as `rl.train.Trainer` wants them."""
    keys = world_keys(seed, replicas, worlds)
    if isinstance(world, World):
        return world.simulate(keys, observation=config.observation, device=device)
    return world.simulate(keys, device=device)


def replica_seeds(seed: int, replicas: int) -> list[int]:
    """A seed for each replica of a run; that of replica r is the same however many ride along."""
    return [streams.derive(seed, "replica", r) for r in range(replicas)]


def q_network(
    shape: Sequence[int], hidden: Sequence[int], actions: int, *, norm: bool = False
) -> Callable[[], nn.Module]:
    """What constructs the Q-network for observations of `shape`: a CNN for planes, else a perceptron.

    Raises:
        AgentError: for a bare index, which no network can read.
    """
    if len(shape) == 0:
        raise AgentError("dqn cannot read a state's index: expected one-hot, coordinates, planes, window-5 or rgb")
    if len(shape) == 3:
        return lambda: (cnn.atari if min(shape[1:]) >= 36 else cnn.grid)(shape, actions)
    return lambda: MLP(math.prod(shape), hidden, actions, norm=norm)
