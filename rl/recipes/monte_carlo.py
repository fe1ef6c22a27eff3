"""Monte Carlo: learners that wait for the end of an episode."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from envs.gymworlds import GymWorld
from envs.world import World
from rl.evaluate import ENDLESS
from rl.monte_carlo import importance
from rl.monte_carlo.control import ExploringStarts, MonteCarlo
from rl.monte_carlo.episodes import every_visit, first_visits, tail_of
from rl.monte_carlo.off_policy import OffPolicy
from rl.monte_carlo.prediction import Prediction
from rl.recipe import AgentError, Recipe, gamma_of, replica_seeds, table_of
from rl.recipes.prediction import policy_for

VISITS = {"first": first_visits, "every": every_visit}
ESTIMATORS = {
    "weighted": importance.weighted,
    "ordinary": importance.ordinary,
    "per-decision": importance.per_decision,
}


@dataclass(frozen=True)
class MonteCarloConfig:
    """What every Monte Carlo learner takes."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead, and returns vary more."""
    limit: int | None = None
    """Steps after which an episode is cut, by default the world's own time limit, or 1,000. Larger learns later and
    remembers more, and returns lack less."""
    tail: int | None = None
    """Steps before that limit which teach nothing, for too little of their return is seen; by default as many as leave
    1% unseen, half of the limit at most. Larger is less biased, and learns from fewer steps."""
    observation: str = "index"
    """What the agent sees: index, or state, which tells apart what looks alike. A table needs a number."""


@dataclass(frozen=True)
class ExploringStartsConfig(MonteCarloConfig):
    """Monte Carlo with exploring starts (Sutton & Barto 2018, p. 99); for worlds that are tables."""

    visits: Literal["every", "first"] = "every"
    """Which visits of a pair in an episode count: all of them, or the first."""


@dataclass(frozen=True)
class EpsilonGreedyConfig(ExploringStartsConfig):
    """Monte Carlo with an epsilon-greedy policy (Sutton & Barto 2018, p. 101); for worlds that are tables."""

    epsilon: float = 1.0
    """Chance of a random action at first. Larger explores more."""
    final_epsilon: float = 0.1
    """Chance of a random action in the end. Larger goes on exploring, and learns what so random a policy is worth."""
    exploration_steps: int = 20_000
    """Steps over which the chance falls from the one to the other. Larger explores longer."""


@dataclass(frozen=True)
class OffPolicyConfig(MonteCarloConfig):
    """Off-policy Monte Carlo control (Sutton & Barto 2018, p. 111); for worlds that are tables."""

    epsilon: float = 1.0
    """Chance of a random action at first. Larger explores more."""
    final_epsilon: float = 0.3
    """Chance of a random action in the end. Larger explores more, and less of an episode teaches."""
    exploration_steps: int = 20_000
    """Steps over which the chance falls from the one to the other. Larger explores longer."""


@dataclass(frozen=True)
class PredictionConfig(MonteCarloConfig):
    """Monte Carlo prediction (Sutton & Barto 2018, sec. 5.1); for worlds that are tables."""

    visits: Literal["first", "every"] = "first"
    """Which visits of a state in an episode count: the first, which is unbiased, or all of them, which are more."""
    epsilon: float = 1.0
    """The policy judged takes a random action with this chance, else an optimal one. Larger is more random; 1 is the
    uniform policy."""


@dataclass(frozen=True)
class OffPolicyPredictionConfig(PredictionConfig):
    """Monte Carlo prediction from random actions (Sutton & Barto 2018, sec. 5.5); for worlds that are tables."""

    estimate: Literal["weighted", "ordinary", "per-decision"] = "weighted"
    """How episodes of random actions tell of the policy judged: by weighted importance sampling, by ordinary, which is
    unbiased and varies without bound, or reward by reward."""
    epsilon: float = 0.5
    """The policy judged takes a random action with this chance, else an optimal one. Larger is nearer to what acts."""


def limit_of(config: MonteCarloConfig, world: World | GymWorld) -> int:
    """Steps after which an episode is cut, for there must be an end. Raises AgentError for none."""
    limit = config.limit if config.limit is not None else world.time_limit or ENDLESS
    if limit < 1:
        raise AgentError(f"limit is {limit}, expected an episode of 1 step or more")
    return limit


def within_limit(config: MonteCarloConfig, world: World | GymWorld) -> World | GymWorld:
    """The world with its episodes cut at the limit."""
    limit = limit_of(config, world)
    return replace(world, time_limit=limit) if isinstance(world, World) else world


def begun_anywhere(config: MonteCarloConfig, world: World | GymWorld) -> World | GymWorld:
    """... and begun in any state in which something is decided, each with equal chance."""
    cut = within_limit(config, world)
    if not isinstance(cut, World):
        return cut
    lived = cut.mdp.lived().double()
    return replace(cut, mdp=replace(cut.mdp, start=lived / lived.sum()))


def numbers(name: str, config: MonteCarloConfig, world: World | GymWorld) -> tuple[World, dict[str, Any]]:
    """The world as a table, and what every learner of `rl.monte_carlo` takes.

    Raises:
        AgentError: where the world is no table or is not seen as an index, or a tail leaves nothing of an episode.
    """
    table, gamma, limit = table_of(name, config, world), gamma_of(config, world), limit_of(config, world)
    tail = tail_of(limit, gamma) if config.tail is None else config.tail
    if not 0 <= tail < limit:
        raise AgentError(f"tail is {tail} in episodes of {limit} steps, expected 0 to {limit - 1}")
    return table, {"gamma": gamma, "limit": limit, "tail": tail}


def build_epsilon_greedy(
    config: EpsilonGreedyConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> MonteCarlo:
    """R tables for `world`."""
    table, given = numbers("mc", config, world)
    return MonteCarlo(
        table.mdp.states,
        table.actions,
        replica_seeds(seed, replicas),
        **given,
        visits=VISITS[config.visits],
        epsilon=(config.epsilon, config.final_epsilon),
        epsilon_steps=config.exploration_steps,
        device=device,
    )


def build_exploring_starts(
    config: ExploringStartsConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> ExploringStarts:
    """R tables for `world`, whose episodes begin anywhere (`begun_anywhere`)."""
    table, given = numbers("mc-exploring-starts", config, world)
    seeds, visits = replica_seeds(seed, replicas), VISITS[config.visits]
    return ExploringStarts(table.mdp.states, table.actions, seeds, **given, visits=visits, device=device)


def build_off_policy(
    config: OffPolicyConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> OffPolicy:
    """R tables for `world`."""
    table, given = numbers("mc-off-policy", config, world)
    return OffPolicy(
        table.mdp.states,
        table.actions,
        replica_seeds(seed, replicas),
        **given,
        epsilon=(config.epsilon, config.final_epsilon),
        epsilon_steps=config.exploration_steps,
        device=device,
    )


def build_prediction(
    config: PredictionConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> Prediction:
    """R tables of the values of a policy that acts itself."""
    table, given = numbers("mc-prediction", config, world)
    policy, seeds = policy_for("mc-prediction", config, table, given["gamma"]), replica_seeds(seed, replicas)
    return Prediction(policy, policy, seeds, **given, visits=VISITS[config.visits], device=device)


def build_off_policy_prediction(
    config: OffPolicyPredictionConfig,
    world: World | GymWorld,
    replicas: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Prediction:
    """R tables of the values of a policy, while every action is taken equally often."""
    table, given = numbers("mc-off-policy-prediction", config, world)
    policy = policy_for("mc-off-policy-prediction", config, table, given["gamma"])
    return Prediction(
        policy,
        torch.full_like(policy, 1 / table.actions),
        replica_seeds(seed, replicas),
        **given,
        estimate=ESTIMATORS[config.estimate],
        visits=VISITS[config.visits],
        device=device,
    )


AGENTS: dict[str, Recipe] = {
    "mc": Recipe(EpsilonGreedyConfig, build_epsilon_greedy, within_limit),
    "mc-exploring-starts": Recipe(ExploringStartsConfig, build_exploring_starts, begun_anywhere),
    "mc-off-policy": Recipe(OffPolicyConfig, build_off_policy, within_limit),
    "mc-prediction": Recipe(PredictionConfig, build_prediction, within_limit),
    "mc-off-policy-prediction": Recipe(OffPolicyPredictionConfig, build_off_policy_prediction, within_limit),
}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    ("mc", "zhao-5x5"): ({}, {"steps": 200_000, "worlds": 20}),
    ("mc-exploring-starts", "zhao-5x5"): ({}, {"steps": 200_000, "worlds": 20}),
    **{
        (name, "blackjack"): ({"limit": 30}, {"steps": 200_000, "worlds": 100, "report_every": 10_000})
        for name in AGENTS
    },
}
