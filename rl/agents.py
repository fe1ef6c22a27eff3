"""The agents there are, by name. `rl.recipes` has a module for each family."""

from __future__ import annotations

import difflib
from types import ModuleType
from typing import Any

import torch

from envs.gymworlds import GymWorld
from envs.types import Worlds
from envs.world import World
from rl import sb3_learners
from rl.recipe import AgentError as AgentError
from rl.recipe import Recipe
from rl.recipes import (
    deep,
    gradient,
    linear,
    linear_prediction,
    memory,
    monte_carlo,
    n_step,
    parallel,
    prediction,
    tabular,
)
from rl.train import TrainConfig, Trainer, world_keys

FAMILIES: dict[str, ModuleType] = {
    "tables, learning from single steps": tabular,
    "tables, learning from n steps": n_step,
    "tables, learning from whole episodes": monte_carlo,
    "tables, the values of a given policy": prediction,
    "linear functions of features": linear,
    "linear functions of features, the values of a given policy": linear_prediction,
    "deep Q-networks": deep,
    "deep Q-networks that remember": memory,
    "deep Q-networks without replay": parallel,
    "policy gradients": gradient,
}

AGENTS: dict[str, Recipe] = {name: recipe for family in FAMILIES.values() for name, recipe in family.AGENTS.items()}

RECIPES: dict[str, Recipe] = {**AGENTS, **sb3_learners.LEARNERS}
"""All that `qx train` takes: ours, and those of stable-baselines3, which `rl.sb3_train` trains."""

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    key: values for family in FAMILIES.values() for key, values in family.TUNED.items()
}
"""(agent, world) -> what differs there from the defaults of the agent's config, and of `TrainConfig`."""


def defaults(agent: str, world: str) -> tuple[Any, TrainConfig]:
    """The configs that `agent` starts from on `world`. Raises AgentError for an unknown agent."""
    recipe = recipe_of(agent)
    ours, train = TUNED.get((agent, world), sb3_learners.USUAL.get(agent, ({}, {})))
    return recipe.config(**ours), TrainConfig(**train)


def recipe_of(agent: str) -> Recipe:
    """The recipe of an agent, ours or stable-baselines3's. Raises AgentError for an unknown one."""
    if agent not in RECIPES:
        near = difflib.get_close_matches(agent, RECIPES, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AgentError(f"agent {agent!r} is unknown, expected one of {', '.join(RECIPES)}{hint}")
    return RECIPES[agent]


def simulate(
    agent: str,
    config: Any,
    world: World | GymWorld,
    *,
    replicas: int,
    worlds: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Worlds:
    """The worlds that `replicas` agents of this name and config act in, as `rl.train.Trainer` wants them."""
    keys, world = world_keys(seed, replicas, worlds), AGENTS[agent].acts_in(config, world)
    if isinstance(world, World):
        return world.simulate(keys, observation=config.observation, device=device)
    return world.simulate(keys, device=device)


def trainer(
    agent: str,
    world: World | GymWorld,
    config: Any = None,
    length: TrainConfig | None = None,
    *,
    replicas: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Trainer:
    """An agent of this name, in its worlds, ready to run; what is not given is as `defaults` has it.

    Raises:
        AgentError: for an unknown name, or an agent that cannot learn in this world.
    """
    usual, usual_length = defaults(agent, world.name)
    config, length = usual if config is None else config, usual_length if length is None else length
    AGENTS[agent].fits(config, length.worlds)
    learner = AGENTS[agent].build(config, world, replicas, seed, device)
    acting = simulate(agent, config, world, replicas=replicas, worlds=length.worlds, seed=seed, device=device)
    return Trainer(learner, acting, length)
