"""Blackjack: what a hand is worth, exactly and by two kinds of importance sampling, and the best policy by chance.

The hand is 13 with a usable ace against a two; the policy to judge sticks on 20 and 21 alone; the games are played by
hitting and sticking equally often. Everything has an exact answer beside it, for the game is a table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from envs.catalog import load
from envs.makers.blackjack import HIT, STICK, state
from envs.mdp import TabularMDP
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams
from rl import agents, dp
from rl.evaluate import exact_returns, iqm
from rl.recipes.monte_carlo import ExploringStartsConfig
from rl.train import TrainConfig

HAND = state(13, True, 2)
PART = 500_000  # games in one call

CLAIM = Claim(
    claim="In blackjack a 13 with a usable ace against a two is worth -0.27726 to one who sticks on 20 and 21 alone; "
    "from random games weighted importance sampling finds that with less error at first than ordinary does; and "
    "exploring starts find the best policy.",
    source="Sutton & Barto 2018, Reinforcement Learning, examples 5.3 and 5.4, fig. 5.2 and 5.3",
    stated={
        "value of the hand, exact": -0.27726,
        "squared error of ordinary over weighted, first 100 games": "> 1",
        "squared error of ordinary after all games": "< 0.01",
        "squared error of weighted after all games": "< 0.01",
        "share of the 200 states where exploring starts play best": "> 0.95",
        "return that their policies lose from the deal": "< 0.005",
    },
)


def run(setting: Setting) -> Finding:
    """200 runs of 10,000 games for the hand; 10 learners of 500,000 games or so for the policy."""
    return compare(setting, runs=200, games=10_000, replicas=10, steps=700_000, worlds=1000)


def compare(setting: Setting, runs: int, games: int, replicas: int, steps: int, worlds: int) -> Finding:
    """The experiment at any size."""
    world = load("blackjack")
    assert isinstance(world, World)
    exact = float(dp.evaluate_exactly(world.mdp, stick_on_20(world.mdp), 1.0)[HAND])
    part = max(1, PART // games)
    errors = [torch.zeros(games, dtype=torch.float64) for _ in ESTIMATES]
    for first in range(0, runs, part):
        some = range(first, min(first + part, runs))
        rho, G = played(world.mdp, setting.seed, some, games)
        for total, estimate in zip(errors, ESTIMATES.values(), strict=True):
            total += (estimate(rho, G) - exact).square().sum(0) / runs
        setting.report(0.6 * some.stop / runs, f"{some.stop} runs of {games} random games")
    learned = explored(world, setting, replicas, steps, worlds)
    ordinary, weighted = errors
    begun = min(100, games)
    found = [
        exact,
        float(ordinary[:begun].mean() / weighted[:begun].mean()),
        float(ordinary[-1]),
        float(weighted[-1]),
        float(iqm(learned.share)),
        float(iqm(learned.lost)),
    ]
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"the hand is worth {exact:.5f} exactly; over the first {begun} games the error of ordinary is "
        f"{found[1]:.1f} times that of weighted (mean of {runs} runs); {replicas} learners with exploring starts play "
        f"best in {found[4]:.1%} of the states after {learned.games:,.0f} games each, and lose {found[5]:.4f}",
        figure=_picture(ordinary, weighted, runs, learned),
        header=("games", "squared error, ordinary", "weighted"),
        rows=[[f"{k:,}", f"{float(ordinary[k - 1]):.4f}", f"{float(weighted[k - 1]):.4f}"] for k in _tens(games)],
    )


def judge(value: float, ratio: float, ordinary: float, weighted: float, share: float, lost: float) -> bool:
    """The rule, on the numbers of the claim in their order.

    The book's value is the mean of 10^8 games, good to three times its standard error, 0.95 / 10^4.
    """
    errors = ratio > 1 and ordinary < 0.01 and weighted < 0.01
    return abs(value + 0.27726) < 3e-4 and errors and share > 0.95 and lost < 0.005


def stick_on_20(mdp: TabularMDP) -> Int64[Tensor, "S"]:
    """The policy that hits below 20."""
    policy = torch.full((mdp.states,), HIT)
    for total, usable, dealer in product((20, 21), (True, False), range(1, 11)):
        policy[state(total, usable, dealer)] = STICK
    return policy


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


def explored(world: World, setting: Setting, replicas: int, steps: int, worlds: int) -> Explored:
    """Monte Carlo with exploring starts, every return of a pair counted alike."""
    config = ExploringStartsConfig(limit=30)
    length = TrainConfig(steps=steps, worlds=worlds, report_every=max(1, steps // 10))
    trainer = agents.trainer(
        "mc-exploring-starts", world, config, length, replicas=replicas, seed=setting.seed, device=setting.device
    )
    games = 0.0
    for step, metrics in trainer.run():
        games = float(metrics["episodes"].mean())
        setting.report(0.6 + 0.4 * min(1.0, step / steps), f"{games:,.0f} games with exploring starts")
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


def _tens(games: int) -> list[int]:
    return [k for k in (1, 10, 100, 1000, 10_000) if k <= games]


def _picture(ordinary: Tensor, weighted: Tensor, runs: int, learned: Explored) -> Figure:
    figure, (left, *maps) = plots.figure(1, 3, width=4.2, height=3.7)
    games = torch.arange(1, len(ordinary) + 1).numpy()
    plots.curve(left, games, ordinary.numpy(), "ordinary importance sampling", 1)
    plots.curve(left, games, weighted.numpy(), "weighted importance sampling", 0)
    left.set_xscale("log")
    left.set_ylim(0, 5)
    left.set_xlim(1, len(games))
    plots.label(left, "Weighted errs less at first", "random games", f"mean squared error, {runs:,} runs")
    plots.legend(left, "upper right")
    share = float(iqm(learned.share))
    names = (f"Exploring starts: {share:.1%} of states best", "The same without a usable ace")
    for ax, hits, best, name in zip(maps, learned.hits, learned.best, names, strict=True):
        _map(ax, hits, best)
        plots.label(ax, name, "dealer shows", "total, with a usable ace" if ax is maps[0] else "total, without")
    bar = figure.colorbar(maps[1].images[0], ax=maps[1], pad=0.02)
    bar.set_label("share of learners that hit", color=plots.INK)
    bar.outline.set_visible(False)
    return figure


def _map(ax: Axes, hits: Float64[Tensor, "10 10"], best: Int64[Tensor, "10 10"]) -> None:
    """Who hits where, and the exact policy's border: below the line it is best to hit."""
    ax.imshow(hits.numpy(), cmap="Blues", vmin=0, vmax=1.25, extent=(-0.5, 9.5, 11.5, 21.5), aspect="auto")
    least = 22 - (best == STICK).sum(0)  # to stick on, [10]
    ax.step(
        [*range(-1, 11)],
        [int(least[0]) - 0.5, *(least - 0.5).tolist(), int(least[-1]) - 0.5],
        where="mid",
        color=plots.COLOURS[1],
        linewidth=2,
    )
    ax.set_xlim(-0.5, 9.5)
    ax.text(4.5, 20, "stick", ha="center", va="center", color=plots.INK)
    ax.text(8.5, 12.5, "hit", ha="center", va="center", color="white")
    ax.set_xticks(range(10), ["A", *map(str, range(2, 11))])
    ax.set_yticks(range(12, 22))
    ax.grid(visible=False)
