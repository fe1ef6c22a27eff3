"""Mountain car: Sarsa on tile coding learns to swing up, by step size and by lambda.

Eight tilings of 8 x 8 tiles (ours have one tile more a side, which the shift needs; the book's are hashed), no
discount, no random actions: values begin at 0, above the truth, and that explores. Episodes are not cut here, as in the
book; Gymnasium's own limit of 200 steps would cut nearly all of the first ones. Its car is the book's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from envs.catalog import load
from experiments.claim import Claim, Finding, Setting
from experiments.episodes import endless, interval, part, per_episode
from lab import plots
from rl.recipes.linear import TileSarsaLambdaConfig

LEARNERS = ((0.1, 0.0), (0.5, 0.0), (0.5, 0.9))
"""(step size times tilings, lambda)"""
SMOOTH = 10  # episodes

CLAIM = Claim(
    claim="Semi-gradient Sarsa on tile coding learns mountain car within some hundred episodes, faster with the larger "
    "step size 0.5/8 than with 0.1/8, and faster again with a trace.",
    source="Sutton & Barto 2018, example 10.1, fig. 10.2; fig. 12.10 (replacing traces)",
    stated={
        "steps an episode at step size 0.5/8, last ten of 100 episodes": "< 180",
        "the same at 0.1/8, over it": "> 1.1",
        "steps of the first 50 episodes, lambda 0.9 over lambda 0": "< 0.95",
    },
    minutes=3.0,
)


def run(setting: Setting) -> Finding:
    """10 replicas of each learner, 100 episodes."""
    return compare(setting, replicas=10, episodes=100)


def compare(setting: Setting, replicas: int, episodes: int) -> Finding:
    """The experiment at any size."""
    lengths = []
    for k, (alpha, lam) in enumerate(LEARNERS):
        report = part(setting, k, len(LEARNERS), f"alpha {alpha:g}/8, lambda {lam:g}")
        lengths.append(lived(setting, alpha, lam, replicas, episodes, report))
    last = [length[:, -SMOOTH:].mean(1) for length in lengths]
    half = [length[:, : (episodes + 1) // 2].mean(1) for length in lengths]
    slow, plain, traced = (float(x.mean()) for x in last)
    numbers = [plain, slow / plain, float(half[2].mean() / half[1].mean())]
    return Finding(
        found=dict(zip(CLAIM.stated, numbers, strict=True)),
        holds=judge(*numbers),
        verdict=f"after {episodes} episodes, {replicas} replicas: {slow:.0f} steps an episode at 0.1/8, {plain:.0f} at "
        f"0.5/8, {traced:.0f} with lambda 0.9",
        figure=_picture(lengths, numbers),
        header=("step size", "lambda", "steps, first half", f"steps, last {SMOOTH}"),
        rows=[
            [f"{alpha:g}/8", f"{lam:g}", interval(a, setting.seed), interval(b, setting.seed)]
            for (alpha, lam), a, b in zip(LEARNERS, half, last, strict=True)
        ],
    )


def lived(
    setting: Setting, alpha: float, lam: float, replicas: int, episodes: int, report: Callable[[float], None]
) -> Float64[Tensor, "R E"]:
    """Steps of each of the first episodes."""
    world = load("MountainCar-v0", {"time_limit": "none"})
    config = TileSarsaLambdaConfig(gamma=1.0, lam=lam, alpha=alpha, final_alpha=alpha, epsilon=0.0, final_epsilon=0.0)
    loop = endless("tile-sarsa-lambda", world, config, replicas=replicas, seed=setting.seed)
    return per_episode(loop, episodes, report)[1].double()


def judge(plain: float, slower: float, traced: float) -> bool:
    """All three bars, written down before the first run."""
    return plain < 180 and slower > 1.1 and traced < 0.95


def _picture(lengths: Sequence[Float64[Tensor, "R E"]], numbers: Sequence[float]) -> Figure:
    figure, (ax,) = plots.figure(1, 1, width=6.2, height=3.8)
    for k, ((alpha, lam), length) in enumerate(zip(LEARNERS, lengths, strict=True)):
        low, middle, high = (torch.quantile(length, q, dim=0) for q in (0.25, 0.5, 0.75))
        x = range(1, length.shape[1] + 1)
        smooth = [plots.smooth(column.numpy(), 5) for column in (middle, low, high)]
        plots.curve(ax, x, smooth[0], f"alpha {alpha:g}/8, lambda {lam:g}", k, smooth[1], smooth[2])
    ax.set_yscale("log")
    ax.set_ylim(100, 2000)
    ax.set_yticks([100, 200, 400, 1000, 2000], ["100", "200", "400", "1000", "2000"])
    title = f"Sarsa on tiles: {numbers[0]:.0f} steps to the top; a trace takes {numbers[2]:.2f} of the steps"
    plots.label(ax, title, "episode", "steps (median and quartiles of 5 episodes)")
    plots.legend(ax, "upper right")
    return figure
