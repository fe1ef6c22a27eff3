"""Deep agents on worlds that have a bar: ten seeds each, all trained in one program, judged as `qx train` judges.

    qx reproduce cartpole          is `qx train double-dqn CartPole-v1 --replicas 10 --episodes 100`

On a table the bar is the exact optimum and the score is the exact value of each seed's policy, so the gap has no noise;
elsewhere it is the mean undiscounted return of 100 episodes, which no seed has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

import envs
from experiments.claim import Claim, Finding, Number, Setting
from lab import plots
from rl import agents
from rl.evaluate import Evaluation, ci95, evaluate, iqm

SEEDS, EPISODES = 10, 100
CLOSE = 1e-6  # of an exact value: what counts as the optimum itself


@dataclass(frozen=True)
class Bar:
    """What an agent is to reach on a world.

    Attributes:
        agent, world: by name; the settings are those of `rl.agents.defaults`.
        least: the return asked for; None for the exact optimum of a table.
        every: every seed is to reach it, not just their interquartile mean.
        source: where the bar is from.
        minutes: about how long it takes on two cores.
        overrides: keys of the world's file, see `envs.load`.
    """

    agent: str
    world: str
    least: float | None
    every: bool
    source: str
    minutes: float
    overrides: Mapping[str, float] = field(default_factory=dict)


STILL = {"slip.forward": 1.0, "slip.left": 0.0, "slip.right": 0.0, "slip.back": 0.0}

BARS: dict[str, Bar] = {
    "cartpole": Bar(
        agent="double-dqn",
        world="CartPole-v1",
        least=475.0,
        every=True,
        source="Barto, Sutton & Anderson 1983; Gymnasium's threshold of CartPole-v1",
        minutes=1.5,
    ),
    "acrobot": Bar(
        agent="ppo",
        world="Acrobot-v1",
        least=-100.0,
        every=False,
        source="Sutton 1996; Gymnasium's threshold of Acrobot-v1",
        minutes=1.5,
    ),
    "mountain-car-v0": Bar(
        agent="tile-sarsa-lambda",
        world="MountainCar-v0",
        least=-110.0,
        every=False,
        source="Moore 1990; Gymnasium's threshold of MountainCar-v0",
        minutes=1.0,
    ),
    "lunar-lander": Bar(
        agent="ppo",
        world="LunarLander-v3",
        least=200.0,
        every=False,
        source="Klimov 2016, LunarLander of OpenAI Gym: 200 is solved",
        minutes=7.0,
    ),
    "key-door-planes": Bar(
        agent="double-dqn",
        world="key-door",
        least=None,
        every=True,
        source="ours, after MiniGrid's DoorKey (Chevalier-Boisvert et al. 2023); value iteration",
        minutes=3.0,
    ),
    "four-rooms-planes": Bar(
        agent="pqn",
        world="four-rooms",
        least=None,
        every=True,
        source="Sutton, Precup & Singh 1999; value iteration",
        minutes=10.0,
    ),
    "four-rooms-no-slip": Bar(
        agent="double-dqn",
        world="four-rooms",
        least=None,
        every=True,
        source="Sutton, Precup & Singh 1999, but every step goes as it was meant; value iteration",
        minutes=3.0,
        overrides=STILL,
    ),
}
"""By the name of the claim."""

NAMES = ("interquartile mean", "lower end of its 95% interval", "seeds that reach it, of 10")


def claim_of(bar: Bar) -> Claim:
    """The claim that `bar` makes."""
    where = bar.world + "".join(f", {key} {value:g}" for key, value in bar.overrides.items())
    what = "the exact optimum" if bar.least is None else f"a return of {bar.least:g}"
    who = "on every one of ten seeds" if bar.every else "in the interquartile mean of ten seeds"
    least = "the optimum" if bar.least is None else f">= {bar.least:g}"
    stated: dict[str, Number] = dict(zip(NAMES, (least, "no bar", 10 if bar.every else "no bar"), strict=True))
    return Claim(
        claim=f"{bar.agent} reaches {what} of {where} {who}.",
        source=bar.source,
        stated=stated,
        minutes=bar.minutes,
    )


def judge(bar: Bar, returns: Float64[Tensor, "R"], optimum: float | None) -> tuple[bool, int]:
    """Whether the bar is reached, and by how many seeds; ValueError where an unknown optimum is asked for."""
    if bar.least is None and optimum is None:
        raise ValueError(f"{bar.world} has no exact optimum, expected a return to ask for")
    least = bar.least if bar.least is not None else float(optimum or 0.0) - CLOSE
    reached = returns >= least
    return bool(reached.all() if bar.every else iqm(returns) >= least), int(reached.sum())


def run(bar: Bar, setting: Setting, *, seeds: int = SEEDS, episodes: int = EPISODES) -> Finding:
    """Train and judge."""
    world = envs.load(bar.world, bar.overrides)
    config, length = agents.defaults(bar.agent, bar.world)
    trainer = agents.trainer(bar.agent, world, replicas=seeds, seed=setting.seed, device=setting.device)
    curve = []
    for step, metrics in trainer.run():
        curve.append((step, metrics["return"].cpu()))
        setting.report(step / length.steps, f"return {float(metrics['return'].nanmean()):.3g}")
    gamma = world.discount if config.gamma is None else config.gamma
    found = evaluate(
        trainer.agent, world, gamma=gamma, observation=config.observation, seed=setting.seed, episodes=episodes
    )
    holds, reached = judge(bar, found.returns, found.optimal_return)
    return Finding(
        found=dict(zip(NAMES, (found.iqm, found.ci95[0], reached), strict=True)),
        holds=holds,
        verdict=f"{reached} of {seeds} seeds reach it after {length.steps:,} steps each; {found.measure}",
        figure=_picture(bar, curve, found),
        header=("seed", "score"),
        rows=[[str(r), f"{float(score):.6g}"] for r, score in enumerate(found.returns)],
    )


def _picture(bar: Bar, curve: list[tuple[int, Tensor]], found: Evaluation) -> Figure:
    """The return while learning with its band, and every seed's score in the end."""
    figure, (left, right) = plots.figure(1, 2, width=4.9, height=3.4)
    kept = [(step, scores) for step, scores in curve if scores.isfinite().all()]
    kept = kept[:: max(1, len(kept) // 100)]
    band = [ci95(scores, 0, resamples=400) for _, scores in kept]
    plots.curve(
        left,
        [step / 1000 for step, _ in kept],
        [float(iqm(scores)) for _, scores in kept],
        f"interquartile mean of {len(found.returns)} seeds",
        low=[low for low, _ in band],
        high=[high for _, high in band],
    )
    title = f"{bar.agent} on {bar.world}, while it learns"
    plots.label(left, title, "steps of a seed, thousands", "undiscounted return")
    plots.legend(left, "lower right")
    level = bar.least if bar.least is not None else found.optimal_return
    scores = found.returns.sort().values
    right.scatter(range(1, len(scores) + 1), scores.tolist(), color=plots.COLOURS[0], s=34, zorder=3)
    right.grid(axis="x", visible=False)
    right.set_xticks(range(1, len(scores) + 1))
    if level is not None:
        plots.level(right, level, "the exact optimum" if bar.least is None else "asked for")
    plots.label(right, f"In the end: {found.iqm:.4g}", "seed, by its score", "score of the learned policy")
    plots.legend(right, "lower right")
    right.margins(y=0.4)
    return figure


def experiments() -> dict[str, tuple[Claim, Callable[[Setting], Finding]]]:
    """Every bar as the catalogue wants it."""
    return {name: (claim_of(bar), partial(run, bar)) for name, bar in BARS.items()}
