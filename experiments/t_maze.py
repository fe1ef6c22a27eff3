"""The T-maze: a cue at the start says which arm pays, twenty steps later. Who remembers, earns it.

    S . . . . . . . . . . . . . . . . . . . +       n above + and s below: 4 on the cued side, -0.1 on the other

All of the corridor looks the same, so at the junction a network that sees the present only can but guess: half of the
episodes. Networks that remember learn to go on for 20 steps, to keep one bit on the way, and to turn by it.

A success is an episode of the greedy policy that ends within ten times the corridor's length with a return above 0:
only the cued side pays, 4, and every step into a wall costs 0.1, so it also stood still less than 40 times. Agents
learn in episodes of at most fifty times the length, for at first they walk at random, which takes about twice the
square of the length to get to the end. The bars are tested on the interquartile mean of the
seeds; the table has the plain mean beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

import envs
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from lab import plots
from rl.agents import trainer
from rl.evaluate import ci95, iqm, optimum, play
from rl.recipes.memory import DRQNConfig
from rl.train import TrainConfig
from rl.types import Agent

KINDS = ("gru", "transformer", "none")
PATIENCE, NURSERY = 10, 50  # times the length: steps of an episode that is judged, and of one that is learnt from
NAMES = {"gru": "GRU", "transformer": "Transformer", "none": "MLP"}

CLAIM = Claim(
    claim="After a corridor of 20 steps in which everything looks the same, networks that remember (GRU, Transformer) "
    "turn to the side that a cue told at the start, and one that sees the present only guesses.",
    source="Bakker 2002, Reinforcement learning with long short-term memory, sec. 4.1 (NIPS 14; there LSTM with "
    "advantage learning, corridors up to 70)",
    stated={
        "GRU: share of episodes that end on the cued side": ">= 0.99",
        "Transformer: share of episodes that end on the cued side": ">= 0.99",
        "MLP: share of episodes that end on the cued side": "0.4 to 0.6",
    },
    minutes=18.0,
)


def run(setting: Setting) -> Finding:
    """Ten seeds of each."""
    return compare(setting, length=20, replicas=10, steps={"gru": 60_000, "transformer": 120_000, "none": 30_000})


def config(kind: str, length: int, steps: int) -> DRQNConfig:
    """What each network needs to learn at all: one learns through time, one sees a window, one neither.

    The discount is lower than the world's, so that a step back costs a tenth of what lies ahead and not a twenty-fifth:
    while a network learns to remember, values change by as much as they are, and it would go to and fro.
    """
    shared: dict[str, Any] = {
        **{"memory": kind, "gamma": 0.95, "lam": 0.9, "learning_rate": 2e-3, "final_learning_rate": 2e-4},
        **{"learning_rate_steps": steps, "exploration_steps": min(20_000, steps // 3), "final_epsilon": 0.02},
    }
    own: dict[str, dict[str, Any]] = {
        "gru": {"burn_in": 4, "length": length + 12, "gradient_steps": 8, "target_every": 10},
        "transformer": {"burn_in": 0, "length": 12, "window": length + 5, "gradient_steps": 4, "target_every": 20}
        | {"final_learning_rate": 2e-5},  # ten times as large as that it forgets again
        "none": {"burn_in": 0, "length": 16, "gradient_steps": 2},
    }
    return DRQNConfig(**(shared | own[kind]))


def compare(setting: Setting, length: int, replicas: int, steps: Mapping[str, int]) -> Finding:
    """The experiment at any size; `steps` of each replica for each kind of network."""
    limit = PATIENCE * length
    world, nursery = (
        envs.load("t-maze", {"t-maze.length": length, "time_limit": cut}) for cut in (limit, NURSERY * length)
    )
    assert isinstance(world, World)
    best = optimum(world, world.discount)[0]
    curves: dict[str, tuple[list[int], list[Tensor]]] = {}
    final: dict[str, Float64[Tensor, "R"]] = {}
    values: dict[str, Float64[Tensor, "R"]] = {}
    total, before = sum(steps[kind] for kind in KINDS), 0
    for kind in KINDS:
        own = steps[kind]
        shape = TrainConfig(steps=own, worlds=16, report_every=max(1, own // 12))
        loop = trainer(
            "drqn",
            nursery,
            config(kind, length, own),
            shape,
            replicas=replicas,
            seed=setting.seed,
            device=setting.device,
        )
        at, shares = [0], [judged(loop.agent, world, setting.seed, 8)[0]]
        for step, _ in loop.run():
            at.append(step)
            shares.append(judged(loop.agent, world, setting.seed, 8)[0])
            setting.report((before + step) / total, f"{NAMES[kind]} {step}")
        before += own
        curves[kind] = (at, shares)
        final[kind], values[kind] = judged(loop.agent, world, setting.seed + 1, 100)
    found = [float(iqm(final[kind])) for kind in KINDS]
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"corridor of {length}, {replicas} seeds, 100 episodes each: "
        + ", ".join(
            f"{NAMES[kind]} {share:.1%} ({int((final[kind] >= 0.99).sum())} seeds at 99% or more)"
            for kind, share in zip(KINDS, found, strict=True)
        )
        + f"; an episode that is not over after {limit} steps is none of the successes",
        figure=_picture(curves, final, length),
        header=("network", "success", "95%", "mean", "seeds at 99% or more", "discounted return", "optimum", "steps"),
        rows=[
            [
                NAMES[kind],
                f"{float(iqm(final[kind])):.3f}",
                "{:.3f} to {:.3f}".format(*ci95(final[kind], setting.seed)),
                f"{float(final[kind].mean()):.3f}",
                f"{int((final[kind] >= 0.99).sum())} of {replicas}",
                f"{float(iqm(values[kind])):.3f}",
                f"{best:.3f}",
                f"{steps[kind]:,}",
            ]
            for kind in KINDS
        ],
    )


def judged(agent: Agent, world: World, seed: int, episodes: int) -> tuple[Float64[Tensor, "R"], Float64[Tensor, "R"]]:
    """The share of each replica's episodes that end on the cued side, and their mean discounted return."""
    played = play(agent, world, gamma=world.discount, observation="one-hot", seed=seed, episodes=episodes)
    return (played.terminated & (played.total > 0)).double().mean(1), played.discounted.mean(1)


def judge(gru: float, transformer: float, none: float) -> bool:
    """The rule, on the numbers of the claim in their order."""
    return gru >= 0.99 and transformer >= 0.99 and 0.4 <= none <= 0.6


def _picture(
    curves: Mapping[str, tuple[Sequence[int], Sequence[Tensor]]], final: Mapping[str, Tensor], length: int
) -> Figure:
    """Success against steps: the mean of all seeds, and from the worst to the best."""
    figure, (ax,) = plots.figure(1, 1, width=6.6, height=3.8)
    for colour, (kind, (at, shares)) in enumerate(curves.items()):
        seeds = torch.stack(list(shares))  # [points, R]
        thousands = [step / 1000 for step in at]
        plots.curve(ax, thousands, seeds.mean(1), NAMES[kind], colour, seeds.amin(1), seeds.amax(1))
    plots.level(ax, 0.5, "guessing")
    ax.set_ylim(-0.02, 1.04)
    ax.set_xlim(0, None)
    said = ", ".join(f"{NAMES[kind]} {float(iqm(share)):.0%}" for kind, share in final.items())
    plots.label(ax, f"T-maze of {length}: {said}", "steps of each seed, thousands", "share that ends on the cued side")
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8, labelcolor=plots.INK)
    return figure
