"""How a name becomes an agent on a given world: what every recipe shares.

A config is what a person may choose; it becomes command-line flags, and its docstrings their help. It ends in a
recipe's `build`: an agent itself takes plain numbers and functions. What can be derived is derived: the network from
the shape of the observation, the discount from the world.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from backbones import cnn
from backbones.mlp import MLP
from backbones.planner import Planner
from envs.gymworlds import GymWorld
from envs.world import World
from lab import streams
from rl.types import Agent


class AgentError(ValueError):
    """An agent that does not exist, or that cannot learn in this world."""


def as_it_is(config: Any, world: World | GymWorld) -> World | GymWorld:
    """The world itself."""
    return world


def fits_any(config: Any, worlds: int) -> None:
    """Nothing to refuse."""


@dataclass(frozen=True)
class Recipe:
    """An agent by name."""

    config: type[Any]
    """A frozen dataclass with `gamma: float | None` and `observation: str` among its fields."""
    build: Callable[..., Agent]
    """`build(config, world, replicas, seed, device)`."""
    acts_in: Callable[[Any, World | GymWorld], World | GymWorld] = as_it_is
    """The world as it wants it while it learns (begun anywhere, cut earlier); it is judged in the world itself."""
    fits: Callable[[Any, int], None] = fits_any
    """Raises AgentError for a config that does not go with so many worlds of a replica."""


def replica_seeds(seed: int, replicas: int) -> list[int]:
    """A seed for each replica of a run; that of replica r is the same however many ride along."""
    return [streams.derive(seed, "replica", r) for r in range(replicas)]


def gamma_of(config: Any, world: World | GymWorld) -> float:
    """The discount asked for, by default the world's own. Raises AgentError outside 0 ... 1."""
    gamma = world.discount if config.gamma is None else config.gamma
    if not 0 <= gamma <= 1:
        raise AgentError(f"gamma is {gamma!r}, expected a discount from 0 to 1")
    return gamma


def table_of(name: str, config: Any, world: World | GymWorld) -> World:
    """The world as a table for the agent `name`. Raises AgentError where it is none, or not seen as an index."""
    if not isinstance(world, World):
        raise AgentError(f"{name} needs a world that is a table, and {world.name} is none: take dqn")
    if config.observation not in ("index", "state"):
        raise AgentError(f"{name} cannot learn from {config.observation!r}: expected observation index or state")
    return world


def shape_of(config: Any, world: World | GymWorld) -> tuple[int, ...]:
    """The shape of what the agent sees."""
    return tuple(world.observe(config.observation).shape[1:]) if isinstance(world, World) else world.obs_shape


Backbone = Literal["auto", "mlp", "cnn", "impala", "planner"]


def network_for(
    shape: Sequence[int], hidden: Sequence[int], outputs: int, *, norm: bool = False, backbone: Backbone = "auto"
) -> Callable[[], nn.Module]:
    """What constructs the network that reads observations of `shape`.

    Args:
        shape: of one observation.
        hidden: widths of a perceptron's hidden layers; the others have their own.
        outputs: numbers out.
        norm: layer-normalise a perceptron's hidden layers.
        backbone: auto takes a CNN for planes (the one of Mnih et al. for large ones), else a perceptron; planner reads
            `planes`, whose first one is the agent's.

    Raises:
        AgentError: for a bare index, which no network can read, and for a CNN where there is no picture.
    """
    if len(shape) == 0:
        raise AgentError("no network reads a state's index: expected one-hot, coordinates, planes, window-5 or rgb")
    picture = len(shape) == 3
    if backbone in ("cnn", "impala", "planner") and not picture:
        raise AgentError(f"backbone {backbone} reads pictures, and observations are {list(shape)}: take mlp, or planes")
    if backbone == "planner":
        return lambda: Planner(shape, outputs)
    if backbone == "impala":
        return lambda: cnn.impala(shape, outputs)
    if backbone == "cnn" or (backbone == "auto" and picture):
        return lambda: (cnn.atari if min(shape[1:]) >= 36 else cnn.grid)(shape, outputs)
    return lambda: MLP(math.prod(shape), hidden, outputs, norm=norm)
