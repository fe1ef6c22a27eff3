"""Roots from noisy observations: which step sizes find them, which stop short, which wander for ever.

    w <- w - a_k (g(w) + noise),   noise standard normal        (Zhao 2025, sec. 6.2)

Two functions: tanh(w - 1) from w = 3, whose slope is bounded by 1, and w^3 - 5, whose slope is not: Robbins & Monro
promise nothing there, and with a_k = 1 / k from w = 0 already the second step overshoots for good (0, 5, -55, ...). It
needs smaller first steps, a_k = 1 / (k + 9).

What theory says beside each number: for a_k = alpha / k the error times sqrt(k) has the spread of Sacks (1958); for a
constant a_k the error keeps that of the linear process; with a_k = 1 / k^2 and |g| < 1 the mean cannot move further
than pi^2 / 6 in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import islice

import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from experiments.claim import Claim, Finding, Setting
from lab import plots, streams
from rl.approximation import Law, asymptotic_spread, constant_spread, noisy, power, robbins_monro, sums

ROOT = 5 ** (1 / 3)
SHORT = 3 - math.pi**2 / 6  # no nearer to 1 does the mean come from 3 with a_k = 1 / k^2, as |tanh| < 1
SPREAD = 0.08  # of a spread that theory gives; that of 2,000 runs errs by 1.6%
OFFSET = 9  # of the steps that w^3 - 5 needs
LAWS: dict[str, Law] = {
    "1 / k": power(1.0, 1.0),
    "1 / k^0.7": power(1.0, 0.7),
    "1 / k^2": power(1.0, 2.0),
    "0.2": power(0.2, 0.0),
}
OFFSETS = range(10)

CLAIM = Claim(
    claim="From noisy observations w - a_k (g(w) + noise) finds the root of g if sum a_k is infinite, sum a_k^2 is "
    "finite and the slope of g is bounded; steps that break the first stop short, constant ones wander for ever.",
    source="Robbins & Monro 1951; Zhao, Mathematical Foundations of Reinforcement Learning, 2025, theorem 6.1",
    stated={
        "tanh(w - 1), a = 1/k: mean of w": 1.0,
        "tanh(w - 1), a = 1/k: spread of w times sqrt(k)": round(asymptotic_spread(1.0, 1.0, 1.0), 4),
        "w^3 - 5, a = 1/(k + 9): mean of w": round(ROOT, 5),
        "w^3 - 5, a = 1/(k + 9): spread of w times sqrt(k)": round(asymptotic_spread(1.0, 3 * ROOT**2, 1.0), 4),
        "tanh(w - 1), a = 1/k^2: mean of w": f"> {SHORT:.3f}",
        "tanh(w - 1), a = 0.2: spread of w": round(constant_spread(0.2, 1.0, 1.0), 4),
        "w^3 - 5, a = 1/k from 0: share of runs that blow up": "> 0.5",
    },
)

Numbers = Float64[Tensor, "R"]


def run(setting: Setting) -> Finding:
    """2,000 runs of 10,000 steps for each law."""
    return compare(setting, runs=2000, steps=10_000)


def line(w: Numbers) -> Numbers:
    """tanh(w - 1), root 1."""
    return torch.tanh(w - 1)


def cube(w: Numbers) -> Numbers:
    """w^3 - 5, root 1.70998."""
    return w**3 - 5


def compare(setting: Setting, runs: int, steps: int) -> Finding:
    """The experiment at any size."""
    ks = sorted({round(steps ** (i / 80)) for i in range(81)})  # as a logarithm has it
    share = 1 / (len(LAWS) + 2)
    tanh = {}
    for i, (name, law) in enumerate(LAWS.items()):
        tanh[name] = paths(setting, "tanh", line, 3.0, law, runs, ks)
        setting.report((i + 1) * share, f"tanh(w - 1), a = {name}")
    cubes = paths(setting, "cube", cube, 0.0, power(1.0, 1.0, OFFSET), runs, ks)
    setting.report(1 - share, "w^3 - 5")
    blown = [blow_up(setting, power(1.0, 1.0, m), runs) for m in OFFSETS]
    last, ends = tanh["1 / k"][-1], cubes[-1]
    found = [
        float(last.mean()),
        float((last - 1).square().mean().sqrt()) * math.sqrt(steps),
        float(ends.mean()),
        float((ends - ROOT).square().mean().sqrt()) * math.sqrt(steps),
        float(tanh["1 / k^2"][-1].mean()),
        float((tanh["0.2"][-1] - 1).square().mean().sqrt()),
        blown[0],
    ]
    rows = []
    for name, law in LAWS.items():
        first, squares = sums(law, steps)[:, -1].tolist()
        rms = (tanh[name] - 1).square().mean(1).sqrt()
        near = rms[ks.index(min(ks, key=lambda k: abs(k - steps / 100)))]
        numbers = [f"{tanh[name][-1].mean():.3f}", f"{near:.3f}", f"{rms[-1]:.4f}"]
        rows.append([name, f"{first:.2f}", f"{squares:.2f}", *numbers])
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=judge(*found),
        verdict=f"after {steps:,} steps of {runs:,} runs; w^3 - 5 breaks the bound on the slope: with a = 1 / k from 0 "
        f"{blown[0]:.1%} of the runs blow up, with 1 / (k + {OFFSET}) {blown[OFFSET]:.1%}",
        figure=_picture(ks, tanh, cubes, blown),
        header=("a_k", "sum a_k", "sum a_k^2", "mean of w", f"rms error at k = {steps // 100:,}", f"at k = {steps:,}"),
        rows=rows,
    )


def judge(
    mean: float, spread: float, cube_mean: float, cube_spread: float, short: float, wander: float, blown: float
) -> bool:
    """Means within 0.01 of the root, spreads within `SPREAD` of theory's, the two bars cleared.

    The constant step's spread may be 12% off: its theory is that of the tangent, and tanh pulls less than that.
    """
    theory = [s for s in CLAIM.stated.values() if not isinstance(s, str)]
    return (
        all(map(math.isfinite, (mean, spread, cube_mean, cube_spread, short, wander, blown)))
        and abs(mean - 1) < 0.01
        and abs(cube_mean - ROOT) < 0.01
        and abs(spread / theory[1] - 1) < SPREAD
        and abs(cube_spread / theory[3] - 1) < SPREAD
        and short > SHORT
        and abs(wander / theory[4] - 1) < 0.12
        and blown > 0.5
    )


def paths(
    setting: Setting, name: str, g: Callable[[Numbers], Numbers], first: float, law: Law, runs: int, ks: Sequence[int]
) -> Float64[Tensor, "K R"]:
    """w after k steps, for each k of `ks`. The noise is the same under every law."""
    observe = noisy(g, streams.keys(setting.seed, name, runs), 1.0)
    began = torch.full((runs,), first, dtype=torch.float64)
    kept = set(ks)
    found = enumerate(islice(robbins_monro(observe, began, law), ks[-1]), start=1)
    return torch.stack([w for k, w in found if k in kept])


def blow_up(setting: Setting, law: Law, runs: int, steps: int = 100) -> float:
    """The share of runs of w^3 - 5 from 0 that leave every bound; a step that overshoots that far never comes back."""
    end = paths(setting, "blow-up", cube, 0.0, law, runs, [steps])[-1]
    return float((~(end.abs() < 1e6)).double().mean())


def _picture(
    ks: Sequence[int], tanh: dict[str, Float64[Tensor, "K R"]], cubes: Float64[Tensor, "K R"], blown: Sequence[float]
) -> Figure:
    figure, (a, b, c, d) = plots.figure(2, 2, width=4.8, height=3.2)
    for ax, w, root, name, colour in (
        (a, tanh["1 / k"], 1.0, "tanh(w - 1), a = 1 / k", 0),
        (b, cubes, ROOT, f"w³ - 5, a = 1 / (k + {OFFSET})", 2),
    ):
        low, middle, high = torch.quantile(w, torch.tensor([0.05, 0.5, 0.95]).double(), dim=1).numpy()
        ax.plot(ks, w[:, :3].numpy(), color=plots.COLOURS[colour], linewidth=0.7, alpha=0.5)
        plots.curve(ax, ks, middle, "median; 90% of the runs; three of them", colour, low, high)
        plots.level(ax, root, f"root {root:.5g}")
        plots.label(ax, f"{name}: the root is found", "step k", "w")
        ax.set_xscale("log")
        ax.set_ylim(root - 1.6, root + (1.6 if colour == 0 else 0.6))
        plots.legend(ax, "lower right")
    for colour, (name, w) in zip((0, 2, 4, 1), tanh.items(), strict=True):
        plots.curve(c, ks, (w - 1).square().mean(1).sqrt().numpy(), f"a = {name}", colour)
    exact = [asymptotic_spread(1.0, 1.0, 1.0) / math.sqrt(k) for k in ks]
    c.plot(ks[len(ks) // 3 :], exact[len(ks) // 3 :], color=plots.INK, linewidth=1, linestyle=(0, (4, 3)))
    c.set_xscale("log")
    c.set_yscale("log")
    c.annotate("1 / √k", (ks[-1], exact[-1]), textcoords="offset points", xytext=(-34, -2), fontsize=8, color=plots.INK)
    plots.label(c, "Too small stops short, constant wanders", "step k", "rms error of w, tanh(w - 1)")
    plots.legend(c, "lower left")
    d.bar(list(OFFSETS), blown, color=plots.COLOURS[4], width=0.7)
    plots.label(d, "w³ - 5 is too steep for a = 1 / k", "m in a = 1 / (k + m)", "share of runs that blow up")
    d.set_xticks(list(OFFSETS))
    d.set_ylim(0, 1.04)
    return figure
