"""Dyna maze: what is remembered is learnt from again, and few episodes suffice.

With n planning steps a step of the world is followed by n updates from the model; n = 0 is Q-learning. Counted are the
episodes until the mean length over replicas is within half of the exact expectation of the best epsilon-greedy policy.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from envs.catalog import load
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from experiments.episodes import learn, part
from lab import plots
from rl import dp
from rl.occupancy import visits
from rl.recipes.tabular import DynaQConfig

ALPHA, EPSILON, PLANNING = 0.1, 0.1, (0, 5, 50)
NEAR = 1.5  # times the best length

CLAIM = Claim(
    claim="In the Dyna maze Q-learning needs about 25 episodes to come near the optimum, Dyna-Q about 5 with 5 "
    "planning steps and about 3 with 50.",
    source="Sutton & Barto 2018, example 8.1 and fig. 8.2",
    stated={"episodes, n = 0": "25 +- 10", "episodes, n = 5": "5 +- 2", "episodes, n = 50": "3 +- 1"},
)


def run(setting: Setting) -> Finding:
    """50 episodes of 100 replicas of each."""
    return compare(setting, replicas=100, episodes=50)


def compare(setting: Setting, replicas: int, episodes: int, planning: tuple[int, int, int] = PLANNING) -> Finding:
    """The experiment at any size, with any three numbers of planning steps."""
    world = load("dyna-maze")
    assert isinstance(world, World)
    best = shortest(world)
    steps: dict[int, Float64[Tensor, "E"]] = {}
    for i, n in enumerate(planning):
        config = DynaQConfig(planning=n, alpha=ALPHA, omega=0.0, epsilon=EPSILON, final_epsilon=EPSILON)
        _, length, _ = learn(
            "dyna-q", world, config, replicas=replicas, episodes=episodes, seed=setting.seed,
            report=part(setting, i, len(planning), f"{n} planning steps"),
        )  # fmt: skip
        steps[n] = length.double().mean(0)
    numbers = [until(mean, NEAR * best) for mean in steps.values()]
    return Finding(
        found=dict(zip(CLAIM.stated, numbers, strict=True)),
        holds=judge(*numbers),
        verdict=f"{numbers[0]}, {numbers[1]} and {numbers[2]} episodes with {', '.join(map(str, planning))} planning "
        f"steps until one takes {NEAR * best:.0f} steps in the mean; the best epsilon-greedy policy takes {best:.1f}, "
        f"exactly ({replicas} replicas)",
        figure=_picture(steps, best),
        header=("planning steps", "first episode", "second", "tenth", "last"),
        rows=[
            [str(n), *(f"{float(mean[min(e, len(mean) - 1)]):.0f}" for e in (0, 1, 9, len(mean) - 1))]
            for n, mean in steps.items()
        ],
    )


def until(mean: Float64[Tensor, "E"], bar: float) -> int:
    """The first episode whose length is below `bar`, counted from 1; one more than there are where none is."""
    below = (mean < bar).nonzero()
    return int(below[0]) + 1 if len(below) else len(mean) + 1


def judge(none: int, five: int, fifty: int) -> bool:
    """The rule, on the numbers of the claim in their order."""
    return abs(none - 25) <= 10 and abs(five - 5) <= 2 and abs(fifty - 3) <= 1


def shortest(world: World, epsilon: float = EPSILON) -> float:
    """Expected steps of an episode by the epsilon-greedy policy around an optimal one."""
    policy = dp.policy_iteration(world.mdp, world.discount, epsilon=epsilon).policy
    return float(visits(world.mdp, dp.soft(policy, world.actions, epsilon)).sum())


def _picture(steps: dict[int, Tensor], best: float) -> Figure:
    figure, [ax] = plots.figure(width=6.4, height=3.8)
    for i, (n, mean) in enumerate(steps.items()):
        plots.curve(ax, torch.arange(1, len(mean) + 1).numpy(), mean.numpy(), f"{n} planning steps", i)
    plots.level(ax, best, f"best epsilon-greedy policy, exact: {best:.1f}")
    ax.set_yscale("log")
    reached = [until(mean, NEAR * best) for mean in steps.values()]
    plots.label(
        ax,
        f"Near the optimum after {reached[0]}, {reached[1]} and {reached[2]} episodes",
        "episode",
        "steps of the episode, mean",
    )
    plots.legend(ax, "upper right")
    return figure
