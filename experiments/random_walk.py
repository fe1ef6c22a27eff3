"""The 19-state random walk: an intermediate n, and an intermediate lambda, learn fastest.

Every setting lives the same walks; the error is the root mean square over the 19 states of v - v_pi, with v_pi exact (a
linear solve), averaged over the first ten episodes and over the runs. Values begin at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from experiments import walks
from experiments.claim import Claim, Finding, Setting
from lab import plots
from rl.tabular.n_step_td import NStepTD
from rl.tabular.td_lambda import TDLambda, TrueOnlineTDLambda

STEPS = (1, 2, 4, 8, 16, 32, 64)
LAMBDAS = (0.0, 0.4, 0.8, 0.9, 0.95)
ALPHAS = tuple(k / 20 for k in range(1, 21))
EPISODES = 10

CLAIM = Claim(
    claim="On the 19-state random walk n-step TD learns fastest with an intermediate n, 4, and TD(lambda) about as "
    "fast with an intermediate lambda; both ends, TD(0) and Monte Carlo, are worse.",
    source="Sutton & Barto 2018, example 7.1 and fig. 7.2; fig. 12.6 and 12.8",
    stated={
        "best n": 4,
        "RMS error of n = 4 at its best step size": "0.26 to 0.27",
        "RMS error of n = 1 over that of n = 4": "> 1.05",
        "RMS error of the largest n over that of n = 4": "> 1.2",
        "least RMS error of TD(lambda) over that of n = 4": "0.9 to 1.1",
        "best lambda of true online TD(lambda)": "0.4 to 0.9",
    },
    minutes=2.0,
)


@dataclass(frozen=True)
class Sweep:
    """Mean errors of one method."""

    settings: Sequence[float]
    """n or lambda."""
    mean: Float64[Tensor, "K A"]
    """Mean RMS error of each setting at each step size."""
    deviation: Float64[Tensor, "K A"]
    """Standard error of that mean, over the runs."""

    def best(self, k: int) -> tuple[float, float, float]:
        """The least error of setting k, its standard error, and its step size."""
        at = int(self.mean[k].argmin())
        return float(self.mean[k, at]), float(self.deviation[k, at]), ALPHAS[at]


def run(setting: Setting) -> Finding:
    """100 runs of each of 20 step sizes side by side."""
    return compare(setting, runs=100)


def compare(setting: Setting, runs: int, episodes: int = EPISODES) -> Finding:
    """The experiment with any number of runs."""
    work = [("n", n) for n in STEPS] + [("lambda", lam) for lam in LAMBDAS] + [("true online", lam) for lam in LAMBDAS]
    found: dict[str, list[Tensor]] = {}
    for done, (method, value) in enumerate(work):
        found.setdefault(method, []).append(sweep(setting, method, float(value), runs, episodes))
        setting.report((done + 1) / len(work), f"{method} = {value:g}")
    sweeps = {
        method: Sweep(
            STEPS if method == "n" else LAMBDAS,
            torch.stack(each).mean(-1),
            torch.stack(each).std(-1) / math.sqrt(runs),
        )
        for method, each in found.items()
    }
    numbers = measured(*(s.mean.amin(1).tolist() for s in sweeps.values()))
    four = sweeps["n"].best(STEPS.index(4))
    header = ("method", "best step size", "RMS error", "95% interval, +-")
    rows = [
        [f"{method} = {value:g}", f"{alpha:g}", f"{mean:.4f}", f"{1.96 * error:.4f}"]
        for method, s in sweeps.items()
        for value, (mean, error, alpha) in zip(s.settings, map(s.best, range(len(s.settings))), strict=True)
    ]
    return Finding(
        found=dict(zip(CLAIM.stated, numbers, strict=True)),
        holds=judge(*numbers),
        verdict=f"over {runs} runs n = {numbers[0]:g} is best; n = 4 has {four[0]:.4f} +- {1.96 * four[1]:.4f} at step "
        f"size {four[2]:g}, and no lambda does better than {numbers[4]:.2f} times that",
        figure=_picture(sweeps, numbers),
        header=header,
        rows=rows,
    )


def sweep(setting: Setting, method: str, value: float, runs: int, episodes: int) -> Float64[Tensor, "A runs"]:
    """The mean error of the first `episodes` episodes of each run at each step size, all of them side by side."""
    world, each = walks.walk_of("random-walk-19"), walks.seeds(setting.seed, runs)
    alpha = torch.tensor(ALPHAS, dtype=torch.float64).repeat_interleave(runs)[:, None]
    policy, all_seeds = walks.uniform(world), each * len(ALPHAS)
    table = {"gamma": 1.0, "alpha": alpha, "omega": 0.0}
    if method == "n":
        agent: NStepTD | TDLambda | TrueOnlineTDLambda = NStepTD(policy, all_seeds, n=int(value), **table)
    elif method == "lambda":
        agent = TDLambda(policy, all_seeds, lam=value, **table)
    else:
        agent = TrueOnlineTDLambda(policy, all_seeds, lam=value, **table)
    errors = walks.errors(agent, world, all_seeds, episodes)[:, 1:]
    return errors.nan_to_num(nan=math.inf).mean(1).view(len(ALPHAS), runs)


def measured(n: Sequence[float], td_lambda: Sequence[float], true_online: Sequence[float]) -> list[float]:
    """The numbers of the claim, from the least error of each setting."""
    four = n[STEPS.index(4)]
    best = STEPS[min(range(len(n)), key=lambda k: n[k])]
    best_lambda = LAMBDAS[min(range(len(true_online)), key=lambda k: true_online[k])]
    return [float(best), four, n[0] / four, n[-1] / four, min(td_lambda) / four, best_lambda]


def judge(best: float, four: float, one: float, largest: float, traces: float, best_lambda: float) -> bool:
    """n = 4 is best and within 0.005 of the book's 0.26 to 0.27; both ends are worse; lambda is as good to a tenth."""
    return (
        best == 4
        and 0.255 <= four <= 0.275
        and one > 1.05
        and largest > 1.2
        and 0.9 <= traces <= 1.1
        and 0.4 <= best_lambda <= 0.9
    )


def _picture(sweeps: dict[str, Sweep], numbers: Sequence[float]) -> Figure:
    figure, axes = plots.figure(1, 3, width=4.1, height=3.7)
    titles = (
        f"n-step TD: n = {numbers[0]:g} is best, {min(sweeps['n'].mean.amin(1)):.3f}",
        f"TD(lambda): {min(sweeps['lambda'].mean.amin(1)):.3f}, on a narrow range",
        f"True online: {min(sweeps['true online'].mean.amin(1)):.3f}, on a wide range",
    )
    for ax, title, (method, found) in zip(axes, titles, sweeps.items(), strict=True):
        _curves(ax, found, "n" if method == "n" else "lambda")
        plots.label(ax, title, "step size alpha", "RMS error, first 10 episodes" if method == "n" else "")
    return figure


def _curves(ax: Axes, found: Sweep, name: str) -> None:
    for k, value in enumerate(found.settings):
        mean = found.mean[k].clone()
        mean[mean > 0.6] = torch.nan  # beyond the picture
        error = 1.96 * found.deviation[k]
        ax.plot(
            ALPHAS, mean, color=plots.COLOURS[k % 6], linewidth=1.6, label=f"{value:g}", linestyle="-" if k < 6 else ":"
        )
        ax.fill_between(ALPHAS, mean - error, mean + error, color=plots.COLOURS[k % 6], alpha=0.18, linewidth=0)
    ax.set_ylim(0.22, 0.7)  # room for the names
    ax.set_xlim(0, 1)
    made = ax.legend(title=name, loc="upper center", ncols=4, frameon=False, fontsize=8, labelcolor=plots.INK)
    made.get_title().set_fontsize(8)
