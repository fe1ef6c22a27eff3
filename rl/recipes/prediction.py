"""Learners of the values of a given policy."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from envs.gymworlds import GymWorld
from envs.world import World
from rl import dp
from rl.recipe import AgentError, Recipe, gamma_of, replica_seeds, table_of
from rl.tabular.lambda_return import OfflineLambdaReturn
from rl.tabular.n_step_td import NStepTD
from rl.tabular.prediction import TD0, Prediction
from rl.tabular.td_lambda import TDLambda, TrueOnlineTDLambda


@dataclass(frozen=True)
class PredictionConfig:
    """What every learner of a given policy's values takes."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead and learns more slowly."""
    epsilon: float = 1.0
    """The policy judged takes a random action with this chance, else an optimal one. Larger is more random; 1 is the
    uniform policy."""
    alpha: float = 1.0
    """Step size of a state's first update. Larger trusts new samples more."""
    omega: float = 0.8
    """The n-th update of a state steps by alpha / n^omega. Larger averages out more chance, and is slower; 0 is a
    constant step size."""
    observation: str = "index"
    """What the agent sees: index, or state, which tells apart what looks alike. A table needs a number."""


@dataclass(frozen=True)
class TD0Config(PredictionConfig):
    """TD(0) on a table (Sutton 1988); for worlds that are tables."""


@dataclass(frozen=True)
class NStepTDConfig(PredictionConfig):
    """n-step TD on a table (Sutton & Barto 2018, sec. 7.1); for worlds that are tables."""

    n: int = 4
    """Rewards before the present estimate. More carry news further and bring more chance with them."""


@dataclass(frozen=True)
class LambdaConfig(PredictionConfig):
    """What learners with lambda take."""

    lam: float = 0.8
    """How much of each return comes from longer ones: 0 is TD(0), 1 Monte Carlo. Larger carries news further and
    brings more chance with it."""


@dataclass(frozen=True)
class TDLambdaConfig(LambdaConfig):
    """TD(lambda) on a table, with accumulating traces (Sutton 1988); for worlds that are tables."""


@dataclass(frozen=True)
class TrueOnlineTDLambdaConfig(LambdaConfig):
    """True online TD(lambda) on a table (van Seijen & Sutton 2014); for worlds that are tables."""


@dataclass(frozen=True)
class OfflineLambdaReturnConfig(LambdaConfig):
    """The offline lambda-return algorithm on a table (Sutton & Barto 2018, sec. 12.1); for worlds that are tables."""


def policy_for(name: str, config: Any, world: World, gamma: float) -> Float64[Tensor, "S A"]:
    """The policy that takes a random action with chance `config.epsilon`, else an optimal one (of equals the first).

    Raises:
        AgentError: for an epsilon outside 0 ... 1; where states look alike to the agent `name`, which has to know in
            which it is to follow the policy.
    """
    epsilon, states = config.epsilon, torch.arange(world.mdp.states)
    if not torch.equal(world.observe(config.observation).cpu(), states):
        raise AgentError(
            f"{name} follows a policy of states, and in {world.name} some look alike: take observation state"
        )
    if not 0 <= epsilon <= 1:
        raise AgentError(f"epsilon is {epsilon!r}, expected a chance from 0 to 1")
    if epsilon == 1:
        return torch.full((world.mdp.states, world.actions), 1 / world.actions, dtype=torch.float64)
    return dp.soft(dp.value_iteration(world.mdp, gamma).policy, world.actions, epsilon)


SHARED = tuple(field.name for field in fields(PredictionConfig))


def recipe(name: str, learner: type[Prediction], config: type[PredictionConfig]) -> Recipe:
    """The recipe of a learner that takes by name what its config has beyond `PredictionConfig`."""

    def build(
        config: PredictionConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
    ) -> Prediction:
        table, gamma = table_of(name, config, world), gamma_of(config, world)
        own = {field.name: getattr(config, field.name) for field in fields(config) if field.name not in SHARED}
        return learner(
            policy_for(name, config, table, gamma),
            replica_seeds(seed, replicas),
            gamma=gamma,
            alpha=config.alpha,
            omega=config.omega,
            **own,
            device=device,
        )

    return Recipe(config, build)


AGENTS: dict[str, Recipe] = {
    "td0": recipe("td0", TD0, TD0Config),
    "n-step-td": recipe("n-step-td", NStepTD, NStepTDConfig),
    "td-lambda": recipe("td-lambda", TDLambda, TDLambdaConfig),
    "true-online-td-lambda": recipe("true-online-td-lambda", TrueOnlineTDLambda, TrueOnlineTDLambdaConfig),
    "offline-lambda-return": recipe("offline-lambda-return", OfflineLambdaReturn, OfflineLambdaReturnConfig),
}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {}
