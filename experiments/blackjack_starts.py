"""The best policy of blackjack, found by Monte Carlo with exploring starts and held against the exact one.

Source: Sutton & Barto 2018, example 5.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from envs.makers.blackjack import HIT
from envs.world import World
from experiments.claim import Setting
from rl import agents, dp
from rl.evaluate import exact_returns
from rl.recipes.monte_carlo import ExploringStartsConfig
from rl.train import TrainConfig


@dataclass(frozen=True)
class Explored:
    """What R learners with exploring starts found."""

    hits: Float64[Tensor, "2 10 10"]
    """Share of them that hit, by usable ace (with, without), total (21 ... 12) and the dealer's card."""
    best: Int64[Tensor, "2 10 10"]
    """The exact policy."""
    share: Float64[Tensor, "R"]
    """Of the 200 states, those where each plays best."""
    lost: Float64[Tensor, "R"]
    """What its policy is worth from the deal, less than the best."""
    games: float
    """In the mean."""


def explored(
    world: World, setting: Setting, replicas: int, steps: int, worlds: int, report: Callable[[float, str], None]
) -> Explored:
    """Monte Carlo with exploring starts, every return of a pair counted alike; `report` is told how far it is."""
    config = ExploringStartsConfig(limit=30)
    length = TrainConfig(steps=steps, worlds=worlds, report_every=max(1, steps // 10))
    trainer = agents.trainer(
        "mc-exploring-starts", world, config, length, replicas=replicas, seed=setting.seed, device=setting.device
    )
    games = 0.0
    for step, metrics in trainer.run():
        games = float(metrics["episodes"].mean())
        report(min(1.0, step / steps), f"{games:,.0f} games with exploring starts")
    exact = dp.policy_iteration(world.mdp, 1.0)
    obs = torch.arange(world.mdp.states, device=setting.device).expand(replicas, -1)
    policy = trainer.agent.policy(obs, trainer.agent.memory(world.mdp.states))[0].cpu()
    returns, best, _ = exact_returns(trainer.agent, world, gamma=1.0, observation="index")
    return Explored(
        hits=(policy == HIT).double().mean(0)[:200].view(2, 10, 10),
        best=exact.policy[:200].view(2, 10, 10),
        share=(policy == exact.policy)[:, :200].double().mean(1),
        lost=best - returns,
        games=games,
    )
