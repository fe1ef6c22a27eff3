"""Tabular learners of action values by temporal differences."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch

from envs.gymworlds import GymWorld
from envs.world import World
from rl.recipe import Recipe, gamma_of, replica_seeds, table_of
from rl.tabular.control import Control
from rl.tabular.double_q import DoubleQLearning
from rl.tabular.dyna import DynaQ, DynaQPlus
from rl.tabular.expected_sarsa import ExpectedSarsa
from rl.tabular.q_learning import QLearning
from rl.tabular.sarsa import Sarsa
from rl.tabular.sarsa_lambda import SarsaLambda
from rl.tabular.watkins import WatkinsQLambda


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


@dataclass(frozen=True)
class SarsaConfig(TabularConfig):
    """Sarsa on a table (Rummery & Niranjan 1994): learns what its own exploring policy is worth."""


@dataclass(frozen=True)
class ExpectedSarsaConfig(TabularConfig):
    """Expected Sarsa on a table (van Seijen et al. 2009): Sarsa without the chance of the next action."""


@dataclass(frozen=True)
class DoubleQLearningConfig(TabularConfig):
    """Double Q-learning on two tables (van Hasselt 2010): no maximum of noise."""


@dataclass(frozen=True)
class SarsaLambdaConfig(TabularConfig):
    """Sarsa(lambda) on a table with accumulating traces (Rummery & Niranjan 1994)."""

    lam: float = 0.8
    """Lambda: how far back an error reaches. Larger carries news further in an episode, and chance with it."""


@dataclass(frozen=True)
class WatkinsQLambdaConfig(TabularConfig):
    """Watkins's Q(lambda) on a table with accumulating traces (Watkins 1989)."""

    lam: float = 0.8
    """Lambda: how far back an error reaches, at most to the last exploring action. Larger carries news further in an
    episode, and chance with it."""


@dataclass(frozen=True)
class DynaQConfig(TabularConfig):
    """Dyna-Q on a table (Sutton 1990); for worlds without chance."""

    omega: float = 0.0
    """The n-th update of a pair, planning too, steps by alpha / n^omega. Larger learns ever more slowly; 0 suits worlds
    without chance."""
    planning: int = 10
    """Updates from the model for each step of the world. More learn more of each step, and take longer."""


@dataclass(frozen=True)
class DynaQPlusConfig(DynaQConfig):
    """Dyna-Q+ on a table (Sutton 1990): Dyna-Q that looks again at what it has not tried for long."""

    kappa: float = 1e-3
    """A pair not tried for tau steps is planned with kappa sqrt(tau) more reward. Larger explores more, and forgoes
    more."""


def numbers(config: TabularConfig, world: World) -> dict[str, Any]:
    """What `rl.tabular.control.Control` takes of a config."""
    return {
        "gamma": gamma_of(config, world),
        "alpha": config.alpha,
        "omega": config.omega,
        "epsilon": (config.epsilon, config.final_epsilon),
        "epsilon_steps": config.exploration_steps,
    }


def recipe(name: str, learner: type[Control], config: type[TabularConfig]) -> Recipe:
    """The recipe of a learner that takes by name what its config has beyond `TabularConfig`."""
    own = [
        field.name for field in fields(config) if field.name not in {shared.name for shared in fields(TabularConfig)}
    ]

    def build(
        config: TabularConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
    ) -> Control:
        table, seeds = table_of(name, config, world), replica_seeds(seed, replicas)
        extra = {field: getattr(config, field) for field in own}
        return learner(table.mdp.states, table.actions, seeds, **numbers(config, table), **extra, device=device)

    return Recipe(config, build)


AGENTS: dict[str, Recipe] = {
    "q-learning": recipe("q-learning", QLearning, QLearningConfig),
    "sarsa": recipe("sarsa", Sarsa, SarsaConfig),
    "expected-sarsa": recipe("expected-sarsa", ExpectedSarsa, ExpectedSarsaConfig),
    "double-q-learning": recipe("double-q-learning", DoubleQLearning, DoubleQLearningConfig),
    "sarsa-lambda": recipe("sarsa-lambda", SarsaLambda, SarsaLambdaConfig),
    "watkins-q-lambda": recipe("watkins-q-lambda", WatkinsQLambda, WatkinsQLambdaConfig),
    "dyna-q": recipe("dyna-q", DynaQ, DynaQConfig),
    "dyna-q-plus": recipe("dyna-q-plus", DynaQPlus, DynaQPlusConfig),
}

# Nothing is left to chance in Zhao's world: constant steps, in ten worlds that begin anywhere.
ZHAO: dict[str, Any] = {"steps": 15_000, "worlds": 10}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("q-learning", "zhao-5x5"): ({"omega": 0.0}, ZHAO),
    ("double-q-learning", "zhao-5x5"): ({"omega": 0.0}, ZHAO),
    ("watkins-q-lambda", "zhao-5x5"): ({"omega": 0.0, "alpha": 0.3}, ZHAO),
}
