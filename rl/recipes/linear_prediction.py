"""Prediction with linear features: semi-gradient TD(lambda)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch

from backbones.features import Fourier, Polynomial
from envs.gymworlds import GymWorld
from envs.observation import bounds
from envs.world import World
from rl.linear.features import Active, Dense, Features, OfStates, Scaled, Tiles
from rl.linear.prediction import SemiGradientTDLambda
from rl.recipe import Recipe, gamma_of, replica_seeds, table_of
from rl.recipes.linear import MOST, MOST_DENSE, fits
from rl.recipes.prediction import policy_for

NAME = "semi-gradient-td-lambda"
TILINGS = 8


@dataclass(frozen=True)
class SemiGradientTDLambdaConfig:
    """Semi-gradient TD(lambda) prediction (Sutton & Barto 2018, sec. 12.2); for worlds that are tables with a map."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and learns more slowly."""
    epsilon: float = 1.0
    """The policy judged takes a random action with this chance, else an optimal one. Larger is more random; 1 is the
    uniform policy."""
    features: Literal["tiles", "fourier", "polynomial"] = "tiles"
    """Of a state's coordinates: 8 tilings, or all cosines or powers up to an order."""
    resolution: int = 4
    """Tiles along a coordinate, or the order. Larger fits finer values, and learns more slowly."""
    alpha: float = 0.1
    """Step size at first; tilings share it. Larger learns faster until it diverges."""
    final_alpha: float = 0.005
    """Step size in the end. Smaller averages out more chance."""
    alpha_steps: int = 50_000
    """Steps over which the step size goes from the one to the other. Larger settles later."""
    lam: float = 0.8
    """How much of each return comes from longer ones: 0 is TD(0), 1 Monte Carlo. Larger is less biased by what the
    features cannot tell apart, and brings more chance with it."""
    observation: str = "index"
    """What the agent sees: index, or state, which tells apart what looks alike. The features are its coordinates'."""


def build_semi_gradient_td(
    config: SemiGradientTDLambdaConfig,
    world: World | GymWorld,
    replicas: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> SemiGradientTDLambda:
    """R learners for `world`. Raises AgentError where the world is no table, or too many features are asked for."""
    table = table_of(NAME, config, world)
    places, gamma = table.observe("coordinates"), gamma_of(config, table)
    low, high = (torch.full(places.shape[1:], bound) for bound in bounds("coordinates"))
    scale, k = Scaled(low, high), places.shape[1]
    each = config.resolution + 1
    if config.features == "tiles":
        fits(NAME, f"{config.resolution} tiles along each of {k} numbers", TILINGS * each**k, MOST)
    else:
        fits(NAME, f"{config.features} features of order {config.resolution} of {k} numbers", each**k, MOST_DENSE)
    made: dict[str, Callable[[], Features]] = {
        "tiles": lambda: Tiles(scale, config.resolution, TILINGS),
        "fourier": lambda: Dense(scale, Fourier(k, config.resolution)),
        "polynomial": lambda: Dense(scale, Polynomial(k, config.resolution)),
    }
    features = made[config.features]()
    seen = Active(*(part.to(device) for part in features(places)))
    rates = features.rates if isinstance(features.rates, float) else features.rates.to(device)
    return SemiGradientTDLambda(
        policy_for(NAME, config, table, gamma),
        replica_seeds(seed, replicas),
        features=OfStates(seen, features.size, rates),
        gamma=gamma,
        alpha=(config.alpha, config.final_alpha),
        alpha_steps=config.alpha_steps,
        lam=config.lam,
        device=device,
    )


AGENTS: dict[str, Recipe] = {NAME: Recipe(SemiGradientTDLambdaConfig, build_semi_gradient_td)}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}
