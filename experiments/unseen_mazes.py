"""Mazes never seen before: an agent that plans on the map it sees walks them as it walks those it learnt in.

    learnt in    500 perfect mazes of 5 x 5 rooms (11 x 11 cells), begun anywhere: PPO on the planner
    judged on    200 others, from the start to the goal, by the action that each policy thinks likeliest

A maze counts when the agent arrives within 1.1 of the shortest way, which is exact (value iteration). Mazes are drawn
from seeds; none of the 200 is among the 500 (there are some 10^11 of them), and the test makes sure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

import envs
from envs.render import draw
from envs.world import World
from experiments.claim import Claim, Finding, Setting
from lab import plots
from rl import dp
from rl.agents import trainer
from rl.evaluate import ci95, iqm, policy_of
from rl.recipes.gradient import PPOConfig
from rl.train import TrainConfig
from rl.types import Agent

ROOMS, SEEN, UNSEEN = 5, 500, 200
ELSEWHERE = 100_000  # the first seed of the mazes to be judged on
NEAR = 1.1  # times the shortest way
GAMMA = 0.97

CLAIM = Claim(
    claim="An agent that plans on the map it sees finds its way through mazes that it has never seen.",
    source="Tamar et al., Value iteration networks, NIPS 2016, sec. 5.1; Nardelli et al., Value propagation networks, "
    "ICLR 2019, sec. 4 (there 8 directions and other obstacles)",
    stated={"share of new mazes walked within 1.1 of the shortest way": ">= 0.95"},
    minutes=8.0,
)


def mazes(count: int, seed: int, rooms: int = ROOMS, **overrides: str | int) -> World:
    """That many mazes side by side, the first of them from `seed`."""
    world = envs.load("maze", {"maze.size": rooms, "maze.count": count, "maze.seed": seed, **overrides})
    assert isinstance(world, World)
    return world


def run(setting: Setting) -> Finding:
    """Ten seeds."""
    return compare(setting, rooms=ROOMS, seen=SEEN, unseen=UNSEEN, replicas=10, steps=50_000, worlds=64)


def settings(steps: int) -> PPOConfig:
    """A short look ahead, for a step is worth little, and hardly any reward for chance."""
    return PPOConfig(
        observation="planes",
        backbone="planner",
        gamma=GAMMA,
        rollout=32,
        epochs=4,
        minibatches=4,
        entropy=0.003,
        learning_rate=1e-2,
        critic_rate=1e-2,
        final_rate=0.1,
        learning_rate_steps=steps,
    )


def compare(setting: Setting, *, rooms: int, seen: int, unseen: int, replicas: int, steps: int, worlds: int) -> Finding:
    """The experiment at any size."""
    old, familiar, new = sets(rooms, seen, unseen)
    best = shortest(new)
    loop = trainer(
        "ppo", old, settings(steps), TrainConfig(steps, worlds, max(1, steps // 12)),
        replicas=replicas, seed=setting.seed, device=setting.device,
    )  # fmt: skip
    at, shares = [0], [near(walked(loop.agent, new), best)]
    for step, _ in loop.run():
        at.append(step)
        shares.append(near(walked(loop.agent, new), best))
        setting.report(step / steps, f"{float(shares[-1].mean()):.0%} of new mazes")
    ways = walked(loop.agent, new)
    share = shares[-1]
    known = near(walked(loop.agent, familiar), shortest(familiar))
    arrived = ways.isfinite().double().mean(1)
    middle = float(iqm(share))
    return Finding(
        found=dict(zip(CLAIM.stated, [middle], strict=True)),
        holds=judge(middle),
        verdict=f"{middle:.1%} of {unseen} new mazes within {NEAR} of the shortest way, {float(iqm(known)):.1%} of "
        f"those learnt in; {replicas} seeds, {steps:,} steps each, interquartile means",
        figure=_picture(at, shares, loop.agent, new, int(best.argmax())),
        header=("mazes", "within 1.1", "95%", "mean", "worst seed", "best seed", "arrive at all"),
        rows=[
            _row("new", share, f"{float(arrived.mean()):.3f}", setting.seed),
            _row("learnt in", known, "", setting.seed),
        ],
    )


def sets(rooms: int, seen: int, unseen: int) -> tuple[World, World, World]:
    """The mazes to learn in, begun anywhere; the same, begun at the start; and those to be judged on."""
    limit = 4 * rooms * rooms
    return (
        mazes(seen, 0, rooms, start="uniform", time_limit=2 * limit),
        mazes(seen, 0, rooms, time_limit=limit),
        mazes(unseen, ELSEWHERE, rooms, time_limit=limit),
    )


def judge(share: float) -> bool:
    """The rule."""
    return share >= 0.95


def shortest(world: World) -> Float64[Tensor, "M"]:
    """Steps from each maze's start to its goal."""
    return steps_of(dp.value_iteration(world.mdp, GAMMA, tolerance=1e-12).values[world.mdp.start > 0])


def walked(agent: Agent, world: World) -> Float64[Tensor, "R M"]:
    """Steps that each replica takes in each maze by the likeliest action; inf where it never arrives.

    Exact: what the policy is worth, with 1 for the goal, is gamma to the steps before the last.
    """
    policy = policy_of(agent, world, "planes")
    if policy.is_floating_point():
        policy = policy.argmax(-1)
    return steps_of(dp.evaluate_exactly(world.mdp, policy, GAMMA)[:, world.mdp.start > 0])


def steps_of(values: Float64[Tensor, "*b"]) -> Float64[Tensor, "*b"]:
    """The steps after which a reward of 1 is worth so much; inf for nothing."""
    steps = 1 + values.log() / math.log(GAMMA)
    return torch.where(values > 1e-9, steps.round(), math.inf)


def near(ways: Float64[Tensor, "*R M"], best: Float64[Tensor, "M"]) -> Float64[Tensor, "*R"]:
    """The share of mazes walked within 1.1 of the shortest way."""
    return (ways <= NEAR * best).double().mean(-1)


def _row(which: str, share: Float64[Tensor, "R"], arrived: str, seed: int) -> list[str]:
    low, high = ci95(share, seed)
    spread = [f"{float(x):.3f}" for x in (iqm(share), share.mean(), share.amin(), share.amax())]
    return [which, spread[0], f"{low:.3f} to {high:.3f}", *spread[1:], arrived]


def _picture(
    at: Sequence[int], shares: Sequence[Float64[Tensor, "R"]], agent: Agent, new: World, hardest: int
) -> Figure:
    """The share against steps, and what the first seed would do everywhere in the new maze with the longest way."""
    figure, (left, right) = plots.figure(1, 2, width=4.6, height=3.9)
    seeds = torch.stack(list(shares))  # [points, R]
    thousands = [step / 1000 for step in at]
    plots.curve(left, thousands, seeds.mean(1), "mean of all seeds", 0, seeds.amin(1), seeds.amax(1))
    plots.level(left, 0.95, "asked for")
    left.set_ylim(-0.02, 1.04)
    left.set_xlim(0, None)
    what = f"{float(seeds[-1].mean()):.0%} of new mazes near the shortest way"
    plots.label(left, what, "steps of each seed, thousands", f"share within {NEAR} of the shortest way")
    plots.legend(left, "lower right")
    part = new.parts[hardest]
    policy = policy_of(agent, part, "planes")[0]
    policy = policy.argmax(-1) if policy.is_floating_point() else policy
    values = dp.evaluate_exactly(part.mdp, policy, GAMMA)
    draw(part, values, policy, ax=right, title="the new maze with the longest way")
    return figure
