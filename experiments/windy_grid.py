"""Windy grid world: Sarsa finds its way across a wind, in fewer and fewer steps.

The slope of episodes against steps is one over the length of an episode. Exactly (`rl.dp`), the best path takes 15
steps and the best epsilon-greedy policy 17.0, which is what the book says that its run came to. Over many runs Sarsa
with a constant step size of 1/2 does not get so far in 8,000 steps: what its next action happens to be is noise that
such a step size does not average out, and its greedy policy often goes round in circles. Beside it stands Expected
Sarsa, whose targets are free of that noise in a world without chance, at its largest step size.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from envs.catalog import load
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from experiments.episodes import path
from lab import plots
from rl import dp
from rl.agents import trainer
from rl.evaluate import policy_of
from rl.recipes.tabular import ExpectedSarsaConfig, SarsaConfig
from rl.train import TrainConfig

ALPHA, EPSILON, EVERY = 0.5, 0.1, 50

CLAIM = Claim(
    claim="With alpha 0.5 and epsilon 0.1 Sarsa ends some 170 windy episodes in 8,000 steps; in the end they take 17 "
    "steps, and the greedy path takes 15.",
    source="Sutton & Barto 2018, example 6.5 and the figure beside it; the count of episodes is read off",
    stated={"episodes in all": "170 +- 20", "steps of an episode, in the end": "17 +- 2", "greedy path, median": "15"},
)


def run(setting: Setting) -> Finding:
    """8,000 steps of 200 replicas."""
    return compare(setting, replicas=200, steps=8000)


def compare(setting: Setting, replicas: int, steps: int) -> Finding:
    """The experiment at any size."""
    world = load("windy")
    assert isinstance(world, World)
    start = world.mdp.start
    length = TrainConfig(steps=steps, worlds=1, report_every=EVERY)

    def walk(name: str, alpha: float) -> tuple[Tensor, Tensor]:
        config = (SarsaConfig if name == "sarsa" else ExpectedSarsaConfig)(
            alpha=alpha, omega=0.0, epsilon=EPSILON, final_epsilon=EPSILON
        )
        loop = trainer(name, world, config, length, replicas=replicas, seed=setting.seed)
        counts = [torch.zeros(replicas, dtype=torch.float64)]
        for step, told in loop.run():
            counts.append(told["episodes"].cpu())
            setting.report(step / steps, name)
        policy = policy_of(loop.agent, world, "index")
        return torch.stack(counts, 1), -dp.evaluate_exactly(world.mdp, policy, 1.0)[:, start > 0][:, 0]

    ended, greedy = walk("sarsa", ALPHA)  # [R, reports], [R]
    expected, straight = walk("expected-sarsa", 1.0)
    floor = -float((dp.policy_iteration(world.mdp, 1.0, epsilon=EPSILON).values * start).sum())
    numbers = [float(ended[:, -1].mean()), steps_late(ended), float(greedy.median())]
    rows = [
        [name, f"{float(e[:, -1].mean()):.0f}", f"{steps_late(e):.1f}", f"{float((g == 15).double().mean()):.0%}"]
        for name, e, g in (("Sarsa, alpha 1/2", ended, greedy), ("Expected Sarsa, alpha 1", expected, straight))
    ]
    return Finding(
        found=dict(zip(CLAIM.stated, [*numbers[:2], path(numbers[2])], strict=True)),
        holds=judge(*numbers),
        verdict=f"{numbers[0]:.0f} episodes in {steps} steps, the last of {numbers[1]:.1f} steps (the best "
        f"epsilon-greedy policy: {floor:.1f}, exactly); {rows[0][3]} of {replicas} replicas end with a shortest greedy "
        f"path. Expected Sarsa with alpha 1: the last of {rows[1][2]} steps, {rows[1][3]} with a shortest path",
        header=["learner", "episodes in all", "steps of an episode, in the end", "shortest greedy path"],
        rows=rows,
        figure=_picture(ended, expected, floor),
    )


def steps_late(ended: Float64[Tensor, "R T"], every: int = EVERY) -> float:
    """Steps of an episode in the last eighth of the walk (1,000 of 8,000 steps), in the mean over replicas.

    Args:
        ended: episodes of each replica by the end of 0, `every`, 2 `every`, ... steps.
        every: steps between two counts.
    """
    last = max(1, ended.shape[1] // 8)
    return last * every / float((ended[:, -1] - ended[:, -1 - last]).mean().clamp(min=1e-9))


def judge(episodes: float, late: float, greedy: float) -> bool:
    """The rule, on the numbers of the claim in their order."""
    return abs(episodes - 170) <= 20 and abs(late - 17) <= 2 and greedy == 15


def _picture(ended: Float64[Tensor, "R T"], expected: Float64[Tensor, "R T"], floor: float) -> Figure:
    figure, [ax] = plots.figure(width=6.4, height=3.8)
    steps = EVERY * torch.arange(ended.shape[1], dtype=torch.float64)
    for color, (name, counts) in enumerate({"Sarsa, alpha 1/2": ended, "Expected Sarsa, alpha 1": expected}.items()):
        low, high = (torch.quantile(counts, share, dim=0).numpy() for share in (0.05, 0.95))
        plots.curve(ax, steps.numpy(), counts.mean(0).numpy(), name, color, low, high)
    best = ended[:, -1].mean() - (steps[-1] - steps) / floor
    shown = best > 0
    ax.plot(
        steps[shown].numpy(), best[shown].numpy(), color=plots.INK, linewidth=1, linestyle=(0, (4, 3)),
        label=f"slope of the best epsilon-greedy policy, {floor:.1f} steps, exact",
    )  # fmt: skip
    plots.label(
        ax,
        f"In the end Sarsa's episodes take {steps_late(ended):.1f} steps, Expected Sarsa's {steps_late(expected):.1f}",
        "steps",
        f"episodes ended, mean and 90% of {len(ended)} replicas",
    )
    plots.legend(ax, "upper left")
    return figure
