"""One hand of blackjack, judged from random games by two kinds of importance sampling.

The hand is 13 with a usable ace against a two; the policy to judge sticks on 20 and 21 alone; the games are played by
hitting and sticking equally often.

Source: Sutton & Barto 2018, example 5.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from envs.makers.blackjack import HIT, STICK, state
from envs.mdp import TabularMDP
from envs.world import World
from lab import streams

HAND = state(13, True, 2)
PART = 500_000  # games in one call


def stick_on_20(mdp: TabularMDP) -> Int64[Tensor, "S"]:
    """The policy that hits below 20."""
    policy = torch.full((mdp.states,), HIT)
    for total, usable, dealer in product((20, 21), (True, False), range(1, 11)):
        policy[state(total, usable, dealer)] = STICK
    return policy


def squared_errors(
    mdp: TabularMDP, seed: int, runs: int, games: int, exact: float, report: Callable[[int], None]
) -> list[Float64[Tensor, "E"]]:
    """Mean over the runs of (estimate - exact)^2 after each game, for each of `ESTIMATES`.

    `report` is told how many runs are done.
    """
    part = max(1, PART // games)
    errors = [torch.zeros(games, dtype=torch.float64) for _ in ESTIMATES]
    for first in range(0, runs, part):
        some = range(first, min(first + part, runs))
        rho, G = played(mdp, seed, some, games)
        for total, estimate in zip(errors, ESTIMATES.values(), strict=True):
            total += (estimate(rho, G) - exact).square().sum(0) / runs
        report(some.stop)
    return errors


def played(
    mdp: TabularMDP, seed: int, runs: range, games: int
) -> tuple[Float64[Tensor, "R E"], Float64[Tensor, "R E"]]:
    """Random games from the hand: (rho of the policy that sticks on 20, return) of each game of each run."""
    keys = torch.tensor([streams.derive(seed, "games", r) for r in runs])[:, None]
    keys = streams.bits(keys, torch.arange(games)).flatten()
    start = torch.zeros_like(mdp.start)
    start[HAND] = 1
    worlds = World("hand", "", replace(mdp, start=start), 1.0).simulate(keys)
    wanted, at = stick_on_20(mdp), worlds.reset()
    coins = streams.bits(keys, -2)
    rho, G = torch.ones(len(keys), dtype=torch.float64), torch.zeros(len(keys), dtype=torch.float64)
    alive = torch.ones(len(keys), dtype=torch.bool)
    t = 0
    while alive.any():
        action = (streams.uniform(coins, t) * 2).long()
        step = worlds.step(action)
        rho = torch.where(alive, rho * 2 * (action == wanted[at]), rho)
        G += step.reward.double() * alive
        alive &= ~step.terminated
        at, t = step.obs, t + 1
    return rho.view(-1, games), G.view(-1, games)


def ordinary_estimates(rho: Float64[Tensor, "R E"], G: Float64[Tensor, "R E"]) -> Float64[Tensor, "R E"]:
    """The estimate after each game (Sutton & Barto eq. 5.5)."""
    return (rho * G).cumsum(1) / torch.arange(1, G.shape[1] + 1)


def weighted_estimates(rho: Float64[Tensor, "R E"], G: Float64[Tensor, "R E"]) -> Float64[Tensor, "R E"]:
    """The estimate after each game, 0 before any that counts (eq. 5.6)."""
    return (rho * G).cumsum(1) / rho.cumsum(1).clamp(min=1e-300)


ESTIMATES: dict[str, Callable[..., Float64[Tensor, "R E"]]] = {
    "ordinary": ordinary_estimates,
    "weighted": weighted_estimates,
}
