"""Blackjack: what a hand is worth, exactly and by two kinds of importance sampling, and the best policy by chance.

`experiments.blackjack_hand` judges the hand, `experiments.blackjack_starts` finds the policy. Everything has an exact
answer beside it, for the game is a table.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from envs.catalog import load
from envs.makers.blackjack import STICK
from envs.world import World
from experiments.blackjack_hand import HAND, squared_errors, stick_on_20
from experiments.blackjack_starts import Explored, explored
from experiments.claim import Claim, Finding, Setting
from lab import plots
from rl import dp
from rl.evaluate import iqm

SHARES = LinearSegmentedColormap.from_list("shares", ["#f7fafd", "#3f8fc4"])  # its end is light enough for a word

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

    def hand(done: int) -> None:
        setting.report(0.6 * done / runs, f"{done} runs of {games} random games")

    def policy(share: float, note: str) -> None:
        setting.report(0.6 + 0.4 * share, note)

    ordinary, weighted = squared_errors(world.mdp, setting.seed, runs, games, exact, hand)
    learned = explored(world, setting, replicas, steps, worlds, policy)
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
    ax.imshow(hits.numpy(), cmap=SHARES, vmin=0, vmax=1, extent=(-0.5, 9.5, 11.5, 21.5), aspect="auto")
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
