"""The five-state random walk: TD(0) below Monte Carlo, learning as it goes and on a batch.

Online: both with constant step sizes, values begin at 1/2, the root mean square error over the five states against the
exact values 1/6 ... 5/6. Batch: after each episode all so far are presented again and again until the values rest.
For TD(0) that is the value of the maximum-likelihood model of what was seen (certainty equivalence), solved exactly
here and checked against batch TD itself; for Monte Carlo it is the mean of the returns seen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from experiments import walks
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams
from rl.tabular.lambda_return import OfflineLambdaReturn
from rl.tabular.prediction import TD0

TD_ALPHAS, MC_ALPHAS = (0.05, 0.1, 0.15), (0.01, 0.02, 0.03, 0.04)
START = 0.5  # of every value

CLAIM = Claim(
    claim="On the five-state random walk TD(0) is consistently better than Monte Carlo, online and on a batch, and "
    "batch TD(0) converges to the certainty-equivalence estimate.",
    source="Sutton & Barto 2018, example 6.2 and 6.3, fig. 6.2",
    stated={
        "least RMS error of TD(0) within 100 episodes, over that of Monte Carlo": "< 0.9",
        "episodes from the 10th on after which batch TD(0) is not below batch Monte Carlo": 0,
        "batch RMS error after 100 episodes, TD(0) over Monte Carlo": "< 0.9",
        "largest difference of batch TD(0) from certainty equivalence": "< 1e-6",
    },
)


def run(setting: Setting) -> Finding:
    """100 runs of 100 episodes."""
    return compare(setting, runs=100, episodes=100)


def compare(setting: Setting, runs: int, episodes: int) -> Finding:
    """The experiment at any size."""
    td = online(setting, TD0, {}, TD_ALPHAS, runs, episodes)
    setting.report(0.4, "TD(0)")
    mc = online(setting, OfflineLambdaReturn, {"lam": 1.0}, MC_ALPHAS, runs, episodes)
    setting.report(0.8, "Monte Carlo")
    count, won = batches(setting, runs, episodes)
    exact = walks.truth(walks.walk_of("random-walk-5"))[1:-1]
    batch_td, batch_mc = (
        (v - exact).square().mean(-1).sqrt() for v in (certainty_equivalence(count), mean_returns(count, won))
    )
    last = count[:, -1:]
    difference = float((batch_td0(last) - certainty_equivalence(last)).abs().max())
    curves = batch_td.mean(0), batch_mc.mean(0)
    above = float((curves[0] >= curves[1])[9:].sum())
    numbers = [float(td.min() / mc.min()), above, float(curves[0][-1] / curves[1][-1]), difference]
    setting.report(1.0, "batches")
    pair = (batch_td[:, -1] - batch_mc[:, -1]).double()
    margin = 1.96 * float(pair.std()) / math.sqrt(runs)
    return Finding(
        found=dict(zip(CLAIM.stated, numbers, strict=True)),
        holds=judge(*numbers),
        verdict=f"over {runs} runs: least online error {float(td.min()):.3f} of TD(0), {float(mc.min()):.3f} of Monte "
        f"Carlo; on a batch of {episodes} episodes {float(curves[0][-1]):.3f} and {float(curves[1][-1]):.3f}, a "
        f"difference of {float(pair.mean()):.3f} +- {margin:.3f} run by run",
        figure=_picture(td, mc, curves),
        header=("method", "least RMS error", f"after {episodes} episodes"),
        rows=[
            *([f"TD(0), alpha {a:g}", f"{c.min():.4f}", f"{c[-1]:.4f}"] for a, c in zip(TD_ALPHAS, td, strict=True)),
            *([f"MC, alpha {a:g}", f"{c.min():.4f}", f"{c[-1]:.4f}"] for a, c in zip(MC_ALPHAS, mc, strict=True)),
            ["batch TD(0)", f"{curves[0].min():.4f}", f"{curves[0][-1]:.4f}"],
            ["batch MC", f"{curves[1].min():.4f}", f"{curves[1][-1]:.4f}"],
        ],
    )


def judge(ratio: float, above: float, batch: float, difference: float) -> bool:
    """TD(0) is a tenth better online and on the batch, at every episode from the 10th on; the fixed point is exact."""
    return ratio < 0.9 and above == 0 and batch < 0.9 and difference < 1e-6


def online(
    setting: Setting,
    kind: type[TD0] | type[OfflineLambdaReturn],
    extra: dict[str, Any],
    alphas: Sequence[float],
    runs: int,
    episodes: int,
) -> Float64[Tensor, "A E1"]:
    """Mean RMS error at each step size, before any and after each episode; all step sizes live the same walks."""
    world, each = walks.walk_of("random-walk-5"), walks.seeds(setting.seed, runs) * len(alphas)
    alpha = torch.tensor(alphas, dtype=torch.float64).repeat_interleave(runs)[:, None]
    agent = kind(walks.uniform(world), each, gamma=1.0, alpha=alpha, omega=0.0, initial=START, **extra)
    return walks.errors(agent, world, each, episodes).view(len(alphas), runs, episodes + 1).mean(1)


def batches(
    setting: Setting, runs: int, episodes: int
) -> tuple[Float64[Tensor, "runs E S S2"], Float64[Tensor, "runs E S"]]:
    """What was seen in the first 1, 2, ... E episodes of each run.

    How often each of the five states was followed by each of the seven (the two ends among them), and how often each
    was visited in episodes that ended on the right, with a return of 1.
    """
    world, each = walks.walk_of("random-walk-5"), walks.seeds(setting.seed, runs)
    worlds = world.simulate(torch.tensor([streams.derive(seed, "batch world") for seed in each]))
    coins = torch.tensor([streams.derive(seed, "batch coin") for seed in each])
    count = torch.zeros(runs, episodes + 1, 7, 7, dtype=torch.float64)  # the last row takes what comes later
    won = torch.zeros(runs, episodes + 1, dtype=torch.float64)
    place, done = torch.arange(runs), torch.zeros(runs, dtype=torch.int64)
    state, t = worlds.reset(), 0
    while int(done.min()) < episodes:
        step = worlds.step((streams.uniform(coins, t) * 2).long())
        count[place, done, state, step.obs] += 1
        won[place, done] += step.reward.double()
        done = (done + step.terminated).clamp(max=episodes)
        state, t = worlds.reset(step.terminated), t + 1
    seen = count[:, :episodes, 1:-1]  # [runs, E, 5, 7]
    return seen.cumsum(1), (seen.sum(-1) * won[:, :episodes, None]).cumsum(1)


def mean_returns(
    count: Float64[Tensor, "runs E S S2"], won: Float64[Tensor, "runs E S"]
) -> Float64[Tensor, "runs E S"]:
    """Batch Monte Carlo: the mean return of each state; 1/2 where it was never visited."""
    visits = count.sum(-1)
    return torch.where(visits > 0, won / visits.clamp(min=1), START)


def certainty_equivalence(count: Float64[Tensor, "runs E S S2"]) -> Float64[Tensor, "runs E S"]:
    """The value in the model that what was seen makes most likely; 1/2 where a state was never visited."""
    visits = count.sum(-1, keepdim=True)
    odds = count / visits.clamp(min=1)  # rows of 0 for states that were never visited
    known = (visits > 0).double()
    reward = odds[..., -1] + START * (1 - known[..., 0])
    return torch.linalg.solve(torch.eye(5, dtype=torch.float64) - odds[..., 1:-1], reward)


def batch_td0(count: Float64[Tensor, "runs E S S2"], step: float = 0.5, sweeps: int = 20_000) -> Tensor:
    """Batch TD(0) itself: the errors of all transitions summed, then one step, until the values rest.

    The step of the batch is `step` over the visits of the state that was visited most.
    """
    v = torch.full(count.shape[:-1], START, dtype=torch.float64)  # [runs, E, S]
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(*v.shape[:-1], 2)
    most = count.sum(-1).amax(-1, keepdim=True)
    for _ in range(sweeps):
        after = torch.cat([ends[..., :1] * 0, v, ends[..., 1:]], -1)  # the right end pays 1, the left 0
        error = (count * (after.unsqueeze(-2) - v.unsqueeze(-1))).sum(-1)
        v = v + step / most * error
        if float(error.abs().max()) < 1e-9:
            break
    return v


def _picture(td: Tensor, mc: Tensor, batch: tuple[Tensor, Tensor]) -> Figure:
    figure, (left, right) = plots.figure(1, 2, width=4.8, height=3.6)
    episodes = range(td.shape[1])
    for names, curves, alphas, colour in (("TD(0)", td, TD_ALPHAS, 0), ("MC", mc, MC_ALPHAS, 1)):
        for k, (a, curve) in enumerate(zip(alphas, curves, strict=True)):
            style = ("-", (0, (5, 2)), (0, (2, 2)), (0, (1, 1)))[k]
            left.plot(
                episodes,
                curve,
                color=plots.COLOURS[colour],
                linewidth=1.5,
                linestyle=style,
                label=f"{names}, alpha {a:g}",
            )
    better = f"{float(td.min()):.3f} against {float(mc.min()):.3f}"
    plots.label(left, f"Online: least error of TD(0) {better} of MC", "episodes", "RMS error over 5 states")
    left.set_ylim(0, 0.36)  # room for the names
    left.legend(loc="upper right", ncols=2, frameon=False, fontsize=8, labelcolor=plots.INK)
    done = range(1, len(batch[0]) + 1)
    plots.curve(right, done, batch[0], "batch TD(0) = certainty equivalence", 0)
    plots.curve(right, done, batch[1], "batch MC = mean return", 1)
    title = f"On a batch: {float(batch[0][-1]):.3f} of TD(0) against {float(batch[1][-1]):.3f} of MC"
    plots.label(right, title, "episodes in the batch", "RMS error over 5 states")
    right.set_ylim(0, 0.36)
    plots.legend(right, "upper right")
    return figure
