"""MC Basic by the length of its episodes: values and policies come right from the target outwards.

Each run begins with a policy of its own, drawn at random. The world leaves nothing to chance, so one episode for each
pair is enough, and what episodes of L steps can tell is known: the optimum within L steps, by backward induction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from envs.catalog import load
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams
from rl import dp
from rl.monte_carlo.basic import mc_basic

LENGTHS = (1, 2, 3, 4, 14, 15, 30, 100)  # those of the book's figure
FARTHEST = 20  # the state at the bottom left, 15 steps from the target
FORBIDDEN = ((1, 1), (1, 2), (2, 2), (3, 1), (3, 3), (4, 1))
ARROWS = ("↑", "→", "↓", "←", "○")

CLAIM = Claim(
    claim="MC Basic needs episodes long enough to reach the target: states near it come right first, the farthest is "
    "worth nothing below 15 steps, and at 30 the policy is optimal while the values are not yet.",
    source="Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 5.2.3, fig. 5.4",
    stated={
        "value of the farthest state at length 14": 0,
        "value of the farthest state at length 15": "> 0",
        "fewest states of 25 with an optimal action at length 30": 25,
        "largest error of a value at length 30": "> 0.1",
        "largest error of a value at length 100": "< 0.01",
        "largest difference to the optimum within the length": "< 1e-9",
    },
)


@dataclass(frozen=True)
class Outcome:
    """What R runs ended with at one length."""

    values: Float64[Tensor, "R S"]
    policy: Int64[Tensor, "R S"]
    best: Int64[Tensor, "R"]
    """States whose action is an optimal one of the endless world."""
    iterations: int


def run(setting: Setting) -> Finding:
    """A hundred runs at each length."""
    return compare(setting, lengths=LENGTHS, replicas=100, iterations=60)


def compare(setting: Setting, lengths: Sequence[int], replicas: int, iterations: int) -> Finding:
    """The experiment at any size; the lengths of the claim (14, 15, 30, 100) must be among them."""
    world = load("zhao-5x5", {"reward.forbidden": -10})
    assert isinstance(world, World)
    exact = dp.policy_iteration(world.mdp, world.discount)
    outcomes: dict[int, Outcome] = {}
    within: dict[int, Float64[Tensor, "S"]] = {}
    for i, length in enumerate(lengths):
        outcomes[length] = converged(world, setting.seed, length, replicas, iterations)
        within[length] = dp.finite_horizon(world.mdp, length, world.discount).values[-1]
        setting.report((i + 1) / len(lengths), f"episodes of {length} steps")
    error = {L: float((o.values - exact.values).abs().max()) for L, o in outcomes.items()}
    found = [
        float(outcomes[14].values[:, FARTHEST].abs().max()),
        float(outcomes[15].values[:, FARTHEST].min()),
        float(outcomes[30].best.min()),
        error[30],
        error[100],
        max(float((o.values - within[L]).abs().max()) for L, o in outcomes.items()),
    ]
    full = [L for L, o in outcomes.items() if int(o.best.min()) == world.mdp.states]
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"of the lengths tried all {replicas} runs find an optimal policy from {min(full, default='none')} "
        f"on; the values are then off by {error[min(full)] if full else max(error.values()):.2f}, and by "
        f"{error[100]:.4f} at 100",
        figure=_picture(outcomes, error, exact),
        header=("length", "states with an optimal action, mean", "fewest", "largest error of a value", "iterations"),
        rows=[
            [
                f"{L}",
                f"{float(o.best.double().mean()):.1f}",
                f"{int(o.best.min())}",
                f"{error[L]:.4f}",
                f"{o.iterations}",
            ]
            for L, o in outcomes.items()
        ],
    )


def judge(below: float, enough: float, states: float, error_30: float, error_100: float, difference: float) -> bool:
    """The rule, on the numbers of the claim in their order."""
    values = abs(below) < 1e-9 and enough > 1e-9 and error_30 > 0.1 and error_100 < 0.01
    return values and states == 25 and difference < 1e-9


def converged(world: World, seed: int, length: int, replicas: int, iterations: int) -> Outcome:
    """MC Basic until no policy changes, or `iterations` times."""
    mdp, seeds = world.mdp, [streams.derive(seed, "mc-basic", length, r) for r in range(replicas)]
    first = streams.generator(seed, "first policies", length)
    policy = torch.randint(mdp.actions, (replicas, mdp.states), generator=first)
    values, done = torch.zeros(policy.shape, dtype=torch.float64), 0
    for q, better in mc_basic(mdp, world.discount, policy, seeds, length=length):
        done += 1
        same, values, policy = bool((better == policy).all()), q.amax(-1), better
        if same or done == iterations:
            break
    optimal = dp.ties(dp.policy_iteration(mdp, world.discount).q)  # [S, A]
    best = optimal.expand(replicas, -1, -1).gather(-1, policy[..., None]).sum((1, 2))
    return Outcome(values, policy, best, done)


def _picture(outcomes: dict[int, Outcome], error: dict[int, float], exact: dp.Solution) -> Figure:
    """Maps of values and arrows by length; beside them how many states are right, and how wrong the values are."""
    figure, axes = plots.figure(2, 5, width=2.5, height=2.9)
    maps, (count, wrong) = [*axes[:4], *axes[5:9]], (axes[4], axes[9])
    for ax, L in zip(maps, LENGTHS, strict=True):
        if L in outcomes:
            _map(ax, outcomes[L], L, exact)
    lengths = list(outcomes)
    place = range(len(lengths))
    mean = [float(outcomes[L].best.double().mean()) for L in lengths]
    low, high = ([float(f(outcomes[L].best)) for L in lengths] for f in (torch.min, torch.max))
    plots.curve(count, place, mean, None, 0, low, high)
    count.set_ylim(0, 26)
    plots.label(count, "Optimal actions, of 25", "", "states (mean, least to most)")
    wrong.plot(place, [error[L] for L in lengths], "o-", color=plots.COLOURS[1], linewidth=1.6, markersize=3.5)
    wrong.plot(place, [10 * 0.9**L for L in lengths], color=plots.INK, linewidth=1, linestyle=(0, (4, 3)))
    wrong.text(0.06, 0.1, "dashed: 10 · 0.9$^L$", transform=wrong.transAxes, fontsize=8, color=plots.INK)
    wrong.set_yscale("log")
    plots.label(wrong, "Error of the values", "length L of an episode", "largest error")
    for ax in (count, wrong):
        ax.set_xticks(list(place), [str(L) for L in lengths])
    return figure


def _map(ax: Axes, outcome: Outcome, length: int, exact: dp.Solution) -> None:
    """One run's values and arrows, those that are not optimal in red; forbidden cells have a frame."""
    values, policy = outcome.values[0].view(5, 5), outcome.policy[0].view(5, 5)
    ax.imshow(values.numpy(), cmap="Blues", vmin=-3, vmax=13)
    optimal = dp.ties(exact.q)
    for r in range(5):
        for c in range(5):
            a, dark = int(policy[r, c]), float(values[r, c]) > 6.6
            right = bool(optimal[5 * r + c, a])
            colour = ("white" if dark else plots.INK) if right else plots.COLOURS[4]
            ax.text(c, r - 0.14, ARROWS[a], ha="center", va="center", fontsize=11, color=colour, fontweight="bold")
            number = f"{float(values[r, c]):.1f}".replace("-0.0", "0.0")
            ax.text(c, r + 0.3, number, ha="center", va="center", fontsize=7, color="white" if dark else plots.INK)
    for r, c in FORBIDDEN:
        ax.add_patch(Rectangle((c - 0.47, r - 0.47), 0.94, 0.94, fill=False, linewidth=1.2, edgecolor=plots.COLOURS[1]))
    ax.set_xticks([])
    ax.set_yticks([])
    ax.grid(visible=False)
    for side in ax.spines.values():
        side.set_visible(False)
    plots.label(ax, f"L = {length}: {int(outcome.best[0])} of 25 optimal")
