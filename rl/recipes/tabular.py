"""Tabular learners of action values by temporal differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from envs.gymworlds import GymWorld
from envs.world import World
from rl.recipe import Recipe, gamma_of, replica_seeds, table_of
from rl.tabular.q_learning import QLearning


@dataclass(frozen=True)
class TabularConfig:
    """What every tabular learner of action values takes."""

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
class QLearningConfig(TabularConfig):
    """Q-learning on a table (Watkins 1989); for worlds that are tables."""


def numbers(config: TabularConfig, world: World) -> dict[str, Any]:
    """What `rl.tabular.control.Control` takes of a config."""
    return {
        "gamma": gamma_of(config, world),
        "alpha": config.alpha,
        "omega": config.omega,
        "epsilon": (config.epsilon, config.final_epsilon),
        "epsilon_steps": config.exploration_steps,
    }


def build_q_learning(
    config: QLearningConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> QLearning:
    """R tables for `world`. Raises AgentError where the world is no table, or is not seen as an index."""
    table = table_of("q-learning", config, world)
    seeds = replica_seeds(seed, replicas)
    return QLearning(table.mdp.states, table.actions, seeds, **numbers(config, table), device=device)


AGENTS: dict[str, Recipe] = {"q-learning": Recipe(QLearningConfig, build_q_learning)}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("q-learning", "zhao-5x5"): ({"omega": 0.0}, {"steps": 15_000, "worlds": 10}),
}
