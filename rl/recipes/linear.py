"""Control with linear features: semi-gradient Sarsa."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from gymnasium import spaces

from backbones.features import Fourier
from envs.gymworlds import GymWorld, make
from envs.observation import bounds
from envs.world import World
from rl.linear.features import Dense, Scaled, Tiles
from rl.linear.sarsa import LinearSarsaLambda, TrueOnlineSarsaLambda, accumulating, replacing
from rl.recipe import AgentError, Recipe, gamma_of, replica_seeds, shape_of

MOST = 1_000_000  # features: beyond, traces of a few replicas no longer fit in memory
MOST_DENSE = 10_000  # of which all count at every step


@dataclass(frozen=True)
class LinearSarsaConfig:
    """What Sarsa(lambda) with linear features takes."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and learns more slowly."""
    lam: float = 0.9
    """How far back an error reaches: 0 is one step, 1 the whole episode. Larger carries news further and brings more
    chance with it."""
    alpha: float = 0.5
    """Step size at first, as the share of an error that a step corrects. Larger learns faster until it diverges."""
    final_alpha: float = 0.05
    """Step size in the end. Smaller settles; larger goes on learning."""
    alpha_steps: int = 100_000
    """Steps over which the step size goes from the one to the other. Larger settles later."""
    epsilon: float = 0.1
    """Chance of a random action at first. Larger explores more; values that begin above the truth explore by
    themselves."""
    final_epsilon: float = 0.01
    """Chance of a random action in the end. Larger goes on exploring."""
    exploration_steps: int = 100_000
    """Steps over which the chance falls from the one to the other. Larger explores longer."""
    observation: str = "coordinates"
    """What the agent sees of a world that is a table: coordinates, scaled to 0 ... 1. Other worlds show what they show,
    scaled by its bounds."""


@dataclass(frozen=True)
class TilesConfig(LinearSarsaConfig):
    """What tile coding takes."""

    tiles: int = 8
    """Tiles along each number. More tell states apart more finely, and learn each by itself."""
    tilings: int = 8
    """Shifted grids of tiles, best a power of 2. More are finer still, generalise as widely, and cost more."""


@dataclass(frozen=True)
class TileSarsaLambdaConfig(TilesConfig):
    """Sarsa(lambda) on tile coding (Sutton & Barto 2018, sec. 12.7); for a few bounded numbers."""

    trace: Literal["replacing", "accumulating"] = "replacing"
    """What a tile that is visited again does: its trace becomes 1, or 1 is added, which diverges sooner."""


@dataclass(frozen=True)
class TrueOnlineSarsaLambdaConfig(TilesConfig):
    """True online Sarsa(lambda) on tile coding (van Seijen et al. 2016); for a few bounded numbers."""


@dataclass(frozen=True)
class FourierSarsaLambdaConfig(LinearSarsaConfig):
    """Sarsa(lambda) on the Fourier basis (Konidaris, Osentoski & Thomas 2011); for a few bounded numbers."""

    alpha: float = 0.005
    """Step size at first, of the constant; other waves have their share of it. Larger learns faster until it
    diverges."""
    final_alpha: float = 0.001
    """Step size in the end. Smaller settles; larger goes on learning."""
    order: int = 3
    """Half waves along each number, at most. More fit sharper values, with (order + 1)^k features."""


def scaled(name: str, config: LinearSarsaConfig, world: World | GymWorld, device: torch.device | str) -> Scaled:
    """What brings the numbers that `world` shows to [0, 1].

    Raises:
        AgentError: where it shows no row of bounded numbers.
    """
    shape = shape_of(config, world)
    if isinstance(world, World):
        if config.observation != "coordinates":
            raise AgentError(f"{name} cannot learn from {config.observation!r}: expected observation coordinates")
        low, high = (torch.full(shape, bound) for bound in bounds("coordinates"))
        return Scaled(low, high, device)
    space = make(world.name, world.arguments).observation_space
    if not isinstance(space, spaces.Box) or len(shape) != 1:
        raise AgentError(f"{name} needs a row of numbers, and {world.name} shows {space}: take dqn")
    low, high = torch.from_numpy(space.low), torch.from_numpy(space.high)
    if not ((high.double() - low.double()) < 1e6).all():
        raise AgentError(f"{name} needs numbers with bounds, and {world.name} shows {space}: take dqn")
    return Scaled(low, high, device)


def fits(name: str, what: str, features: int, most: int) -> None:
    """Raises AgentError for more features than `most`."""
    if features > most:
        raise AgentError(f"{name}: {what} make {features:,} features, expected at most {most:,}")


def tiles_for(name: str, config: TilesConfig, world: World | GymWorld, device: torch.device | str) -> Tiles:
    """Tile coding of what `world` shows. Raises AgentError where it would be too large."""
    scale = scaled(name, config, world, device)
    size = config.tilings * (config.tiles + 1) ** len(scale.low)
    fits(name, f"{config.tiles} tiles along each of {len(scale.low)} numbers", size, MOST)
    return Tiles(scale, config.tiles, config.tilings)


def numbers(config: LinearSarsaConfig, world: World | GymWorld) -> dict[str, Any]:
    """What `rl.linear.sarsa.LinearSarsa` takes of a config."""
    return {
        "gamma": gamma_of(config, world),
        "lam": config.lam,
        "alpha": (config.alpha, config.final_alpha),
        "alpha_steps": config.alpha_steps,
        "epsilon": (config.epsilon, config.final_epsilon),
        "epsilon_steps": config.exploration_steps,
    }


MARKS = {"replacing": replacing, "accumulating": accumulating}


def build_tile_sarsa(
    config: TileSarsaLambdaConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> LinearSarsaLambda:
    """R learners for `world`."""
    features, mark = tiles_for("tile-sarsa-lambda", config, world, device), MARKS[config.trace]
    seeds = replica_seeds(seed, replicas)
    return LinearSarsaLambda(features, world.actions, seeds, trace=mark, **numbers(config, world), device=device)


def build_true_online_sarsa(
    config: TrueOnlineSarsaLambdaConfig,
    world: World | GymWorld,
    replicas: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> TrueOnlineSarsaLambda:
    """R learners for `world`."""
    features = tiles_for("true-online-sarsa-lambda", config, world, device)
    return TrueOnlineSarsaLambda(
        features, world.actions, replica_seeds(seed, replicas), **numbers(config, world), device=device
    )


def build_fourier_sarsa(
    config: FourierSarsaLambdaConfig,
    world: World | GymWorld,
    replicas: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> LinearSarsaLambda:
    """R learners for `world`. Raises AgentError where the basis would be too large."""
    scale = scaled("fourier-sarsa-lambda", config, world, device)
    waves = f"waves of order {config.order} along each of {len(scale.low)} numbers"
    fits("fourier-sarsa-lambda", waves, (config.order + 1) ** len(scale.low), MOST_DENSE)
    features = Dense(scale, Fourier(len(scale.low), config.order))
    seeds = replica_seeds(seed, replicas)
    return LinearSarsaLambda(
        features, world.actions, seeds, trace=accumulating, **numbers(config, world), device=device
    )


AGENTS: dict[str, Recipe] = {
    "tile-sarsa-lambda": Recipe(TileSarsaLambdaConfig, build_tile_sarsa),
    "true-online-sarsa-lambda": Recipe(TrueOnlineSarsaLambdaConfig, build_true_online_sarsa),
    "fourier-sarsa-lambda": Recipe(FourierSarsaLambdaConfig, build_fourier_sarsa),
}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    # The number of steps to the top is what counts, so no discount; values begin above the truth, which explores.
    ("tile-sarsa-lambda", "MountainCar-v0"): (
        {
            "gamma": 1.0,
            "final_alpha": 0.02,
            "epsilon": 0.05,
            "final_epsilon": 0.0,
            "exploration_steps": 80_000,
        },
        {"steps": 120_000, "worlds": 2},
    )
}
