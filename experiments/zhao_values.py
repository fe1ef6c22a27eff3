"""The epsilon-greedy values of Zhao's 5 x 5 grid world, exactly and learned, and how fast the planners come to them.

    v_e = max over the epsilon-greedy policies of v     the best that explores so much        (Zhao 2025, sec. 5.5)
    v_pi*(e)                                            the optimal policy, made epsilon-greedy and otherwise unchanged

Both by exact dynamic programming. The first is also learned: Expected Sarsa's fixed point is v_e, and as the world
leaves nothing to chance and the policy's chance is averaged over, a constant step size finds it to any digit. Its
episodes are cut after 10 steps and begin anywhere: cut after 100, the rarest pair was tried twice in 200,000 steps at
epsilon 0.1, and some value was still wrong by 0.33.
The planners are asked for values that are provably within 0.01; rounds (improvements or sweeps) and backups are
counted as in `rl.dp.Solution`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from envs import render
from envs.catalog import load
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams
from rl import dp
from rl.backup import Backup
from rl.prioritised import prioritised_sweeping
from rl.tabular.expected_sarsa import ExpectedSarsa
from rl.train import TrainConfig, Trainer
from rl.truncated import rounds, truncated_policy_iteration

EPSILONS = (0.0, 0.1, 0.2, 0.5)
SWEEPS = (1, 3, 6, 100)  # of evaluation between improvements; 1 is value iteration
NEAR = 0.01  # how near the planners' values are to come
EPISODE = 10  # steps of the learner's episodes
LEARNED = 0.05  # how near the learned ones have to; values go from -9 to 10

CLAIM = Claim(
    claim="The more a policy explores the less it is worth; with epsilon 0.1 the best epsilon-greedy policy still "
    "points where the optimal one does, with 0.2 and 0.5 no more. More sweeps of evaluation need fewer improvements.",
    source="Zhao, Mathematical Foundations of Reinforcement Learning, 2025, sec. 4.3 and 5.5: r_boundary = -1, "
    "r_forbidden = -10, r_target = 1, gamma = 0.9",
    stated={
        "epsilon 0: first row of values": "3.5 3.9 4.3 4.8 5.3",
        "epsilon 0.1: first row of values": "0.4 0.5 0.9 1.3 1.4",
        "epsilon 0.1: states of 25 where the best action is optimal": 25,
        "epsilon 0.2: states of 25 where the best action is optimal": "< 25",
        "epsilon 0.5: states of 25 where the best action is optimal": "< 25",
        "least loss of value from one epsilon to the next": "> 0",
        "largest error of the learned values": f"< {LEARNED}",
        "rounds, value iteration over truncated with 3 sweeps": "> 1",
        "rounds, truncated with 3 sweeps over policy iteration": "> 1",
    },
)


@dataclass(frozen=True)
class Table:
    """What is known of one epsilon."""

    best: dp.Solution
    kept: Float64[Tensor, "S"]
    """Values of the optimal policy with this epsilon."""
    agree: int
    """States in which some best action of the one is a best action of the other."""
    learned: Float64[Tensor, "R S"] | None


@dataclass(frozen=True)
class Planner:
    """What it takes to come within `NEAR`."""

    name: str
    rounds: int
    backups: int


def run(setting: Setting) -> Finding:
    """20 replicas of 200,000 steps for each epsilon but 0, which does not explore."""
    return compare(setting, replicas=20, steps=200_000)


def compare(setting: Setting, replicas: int, steps: int) -> Finding:
    """The experiment at any size."""
    world = load("zhao-5x5", {"reward.forbidden": -10})
    assert isinstance(world, World)
    tables: dict[float, Table] = {}
    optimal = dp.policy_iteration(world.mdp, world.discount)
    for i, epsilon in enumerate(EPSILONS):
        best = dp.policy_iteration(world.mdp, world.discount, epsilon)
        kept = dp.evaluate_exactly(world.mdp, dp.soft(optimal.policy, world.actions, epsilon), world.discount)
        agree = int((dp.ties(best.q) & dp.ties(optimal.q)).any(-1).sum())
        taught = learned(setting, world, epsilon, replicas, steps) if epsilon else None
        tables[epsilon] = Table(best, kept, agree, taught)
        setting.report((i + 1) / (len(EPSILONS) + 1), f"epsilon {epsilon:g}")
    planners = plan(world)
    values = torch.stack([table.best.values for table in tables.values()])  # [epsilons, S]
    wrong = {e: (t.learned - t.best.values).abs().max().item() for e, t in tables.items() if t.learned is not None}
    worst = max(wrong.values())
    took = {planner.name: planner.rounds for planner in planners}
    found: list[int | float | str] = [
        *(row(tables[e].best.values) for e in (0.0, 0.1)),
        *(tables[e].agree for e in (0.1, 0.2, 0.5)),
        float(-values.diff(dim=0).max()),
        worst,
        took["value iteration"] / took["truncated, 3 sweeps"],
        took["truncated, 3 sweeps"] / took["policy iteration"],
    ]
    assert world.layout is not None
    target = int(world.layout.states[0][world.layout.shows("goal", 0)])
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"the target, among forbidden cells, falls in value from {tables[0.0].best.values[target]:.1f} to "
        f"{tables[0.5].best.values[target]:.1f} at epsilon 0.5, where the best policy "
        f"{'stays' if world.action_names[tables[0.5].best.policy[target]] == 'stay' else 'leaves it'}; "
        + "; ".join(f"{p.name} {p.rounds} rounds, {p.backups:,} backups" for p in planners),
        figure=_picture(world, tables, planners, optimal.values),
        header=("epsilon", "mean value, best", "mean value, optimal policy", "target", "agree", "error, learned"),
        rows=[
            [
                f"{e:g}",
                f"{t.best.values.mean():.3f}",
                f"{t.kept.mean():.3f}",
                f"{t.best.values[target]:.3f}",
                f"{t.agree} of {world.mdp.states}",
                f"{wrong[e]:.1e}" if e in wrong else "-",
            ]
            for e, t in tables.items()
        ],
    )


def judge(*found: int | float | str) -> bool:
    """The rows to the book's digits, the counts as said, each state worth less with each epsilon, learned values near.

    Set before the first run, `LEARNED` too.
    """
    zero, tenth, agree, fifth, half, loss, worst, values, truncated = found
    assert not any(isinstance(x, str) for x in (loss, worst, values, truncated))
    return (
        [zero, tenth] == list(CLAIM.stated.values())[:2]
        and agree == 25
        and max(int(fifth), int(half)) < 25
        and float(loss) > 0
        and float(worst) < LEARNED
        and min(float(values), float(truncated)) > 1
    )


def row(values: Float64[Tensor, "S"]) -> str:
    """The upper row, as the book prints it."""
    return " ".join(f"{v:.1f}" for v in values[:5].tolist())


def learned(setting: Setting, world: World, epsilon: float, replicas: int, steps: int) -> Float64[Tensor, "R S"]:
    """Expected Sarsa's values of its own epsilon-greedy policy, from 25 worlds of each replica."""
    worlds, name = 25, f"epsilon {epsilon:g}"
    seeds = [streams.derive(setting.seed, name, r) for r in range(replicas)]
    agent = ExpectedSarsa(
        world.mdp.states,
        world.actions,
        seeds,
        gamma=world.discount,
        alpha=0.5,
        omega=0.0,
        epsilon=(epsilon, epsilon),
        epsilon_steps=1,
    )
    cut = replace(world, time_limit=EPISODE)
    acting = cut.simulate(streams.keys(setting.seed, f"{name}, worlds", replicas, worlds).flatten())
    for _ in Trainer(agent, acting, TrainConfig(steps=steps, worlds=worlds, report_every=steps)).run():
        pass
    q = agent.q.value  # [R, S, A]
    return (1 - epsilon) * q.amax(-1) + epsilon * q.mean(-1)


def plan(world: World) -> list[Planner]:
    """Every planner, from v = 0 to within `NEAR` for certain."""
    mdp, gamma = world.mdp, world.discount
    ways = {
        "value iteration": dp.value_iteration(mdp, gamma, NEAR),
        **{f"truncated, {j} sweeps": truncated_policy_iteration(mdp, gamma, j, NEAR) for j in SWEEPS[1:]},
        "policy iteration": dp.policy_iteration(mdp, gamma),
        "prioritised sweeping": prioritised_sweeping(mdp, gamma, NEAR),
    }
    return [Planner(name, way.iterations, way.backups) for name, way in ways.items()]


def _picture(
    world: World, tables: dict[float, Table], planners: Sequence[Planner], optimum: Float64[Tensor, "S"]
) -> Figure:
    figure, axes = plots.figure(2, 5, width=3.1, height=3.2)
    for i, (epsilon, table) in enumerate(tables.items()):
        title = f"epsilon {epsilon:g}: {table.agree} of 25 as optimal" if epsilon else "optimal, epsilon 0"
        render.draw(world, table.best.values, table.best.ties(), title=title, ax=axes[i])
        title = f"optimal policy made epsilon {epsilon:g}" if epsilon else "optimal policy"
        render.draw(world, table.kept, tables[0.0].best.ties(), title=title, ax=axes[5 + i])
    top, bottom = axes[4], axes[9]
    backup = Backup(world.mdp, world.discount)
    for colour, sweeps in enumerate(SWEEPS):
        reached = np.stack([v for v, _ in islice(rounds(backup, sweeps), 61)])
        error = np.abs(reached - optimum.numpy()).max(1)
        name = "1 sweep: value iteration" if sweeps == 1 else f"{sweeps} sweeps"
        plots.curve(top, np.arange(61), error, name, colour)
    top.set_yscale("log")
    top.set_ylim(1e-3, 60)
    plots.label(top, "More sweeps, fewer improvements", "improvements", "largest error of a value")
    plots.legend(top, "upper right")
    backups = [planner.backups for planner in planners]
    names = [f"{p.name}\n+ {p.rounds + 1} solves" if p.name == "policy iteration" else p.name for p in planners]
    colours = [0, *range(1, len(SWEEPS)), 4, 5]
    drawn = bottom.barh(names[::-1], backups[::-1], color=[plots.COLOURS[c] for c in colours][::-1], height=0.62)
    bottom.bar_label(drawn, labels=[f"{b:,}" for b in backups[::-1]], padding=2, fontsize=8)
    bottom.grid(axis="y", visible=False)
    bottom.set_xlim(0, 1.22 * max(backups))
    bottom.xaxis.set_major_locator(MaxNLocator(3))
    plots.label(bottom, f"Work to be within {NEAR:g}", "backups")
    return figure
