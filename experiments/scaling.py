"""Why dot products are divided by sqrt(d): their variance, and what it does to a softmax and to its gradient.

With the entries of q and k independent, of mean 0 and variance 1, q . k has variance d. The larger it is, the more of
the softmax falls to one key, and the less a logit can change it:

    entropy    -sum_i p_i log p_i                    log n where all keys count alike, 0 where one counts alone
    gradient   sum_i dp_i / dlogit_i = 1 - sum_i p_i^2     1 - 1/n where all count alike, 0 where one counts alone

What is measured is compared with exact means for n keys. Given q, the logits are independent and normal, of variance
s^2 = |q|^2, which has a chi-squared law of d degrees. With l = s x, x standard normal, Z the sum of all exp(l) and
L(t) = E exp(-t e^l), so that E exp(-t Z) = L(t)^n,

    E log Z        = int (exp(-t) - L^n) / t dt                      since log z = int (exp(-t) - exp(-t z)) / t dt
    E sum p l      = n int E[l e^l exp(-t e^l)] L^(n-1) dt           since 1 / Z = int exp(-t Z) dt
    E sum p^2      = n int t E[e^(2 l) exp(-t e^l)] L^(n-1) dt       since 1 / Z^2 = int t exp(-t Z) dt

and the entropy is E log Z - E sum p l. (For many keys this is the random energy model: Derrida 1981.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]  # scipy ships no types
from torch import Tensor

from experiments.claim import Claim, Finding, Setting
from lab import plots, streams

WIDTHS = (4, 16, 64, 256, 1024)  # d
MARGIN = 0.05  # of a measured over an exact number; fixed before the first run

CLAIM = Claim(
    claim="Dot products of queries and keys have variance d; without division by sqrt(d) the softmax saturates as d "
    "grows, and its gradients become small.",
    source="Vaswani et al. 2017, sec. 3.2.1 and footnote 4",
    stated={
        "variance / d, not divided": 1,
        "variance, divided": 1,
        "gradient at d = 1024 over d = 4, not divided": "< 0.25",
        "gradient at d = 1024 over d = 4, divided": "> 0.9",
        "entropy, measured - exact, at most (nats)": "< 0.05",
        "gradient, measured / exact, at worst": "1 +- 0.05",
    },
)


@dataclass(frozen=True)
class Softmax:
    """Means over many queries.

    Attributes:
        variance: of a logit.
        entropy: of the weights, in nats.
        gradient: 1 - sum p^2.
    """

    variance: float
    entropy: float
    gradient: float


def run(setting: Setting) -> Finding:
    """64 keys, d = 4 ... 1024; 40,000 queries each with its own keys, so that the error of every mean is near 1%."""
    return compare(setting, WIDTHS, keys=64, queries=40_000)


def compare(setting: Setting, widths: Sequence[int], keys: int, queries: int) -> Finding:
    """The experiment at any sizes."""
    found: dict[bool, list[Softmax]] = {False: [], True: []}
    exact: dict[bool, list[Softmax]] = {False: [], True: []}
    for i, width in enumerate(widths):
        drawn = draw(setting, width, keys, queries)
        for divided in (False, True):
            found[divided].append(measure(drawn / math.sqrt(width) if divided else drawn))
            exact[divided].append(predict(width, keys, divided=divided))
        setting.report((i + 1) / len(widths), f"d = {width}")
    both = [(a, b) for divided in (False, True) for a, b in zip(found[divided], exact[divided], strict=True)]
    ratios = [a.gradient / b.gradient for a, b in both]
    variances = [a.variance / b.variance for a, b in both]
    worst = {
        False: max(variances[: len(widths)], key=lambda r: abs(r - 1)),
        True: max(variances[len(widths) :], key=lambda r: abs(r - 1)),
    }
    fall = {divided: of[-1].gradient / of[0].gradient for divided, of in found.items()}
    off, ratio = max(abs(a.entropy - b.entropy) for a, b in both), max(ratios, key=lambda r: abs(r - 1))
    numbers = [worst[False], worst[True], fall[False], fall[True], off, ratio]
    first, last = found[False][0], found[False][-1]
    return Finding(
        found=dict(zip(CLAIM.stated, numbers, strict=True)),
        holds=as_stated(numbers),
        verdict=f"from d = {widths[0]} to {widths[-1]} the gradient falls to {fall[False]:.0%} and the entropy from "
        f"{first.entropy:.2f} to {last.entropy:.2f} nats of log {keys} = {math.log(keys):.2f}; divided, they stay: for "
        "independent normal entries, as at initialisation",
        figure=_picture(widths, keys, found, exact),
        header=("d", "divided", "variance", "entropy", "exact", "gradient", "exact"),
        rows=[
            [
                *(f"{width}", "yes" if divided else "no", f"{found[divided][i].variance:.2f}"),
                *(f"{found[divided][i].entropy:.3f}", f"{exact[divided][i].entropy:.3f}"),
                *(f"{found[divided][i].gradient:.3f}", f"{exact[divided][i].gradient:.3f}"),
            ]
            for divided in (False, True)
            for i, width in enumerate(widths)
        ],
    )


def as_stated(found: Sequence[float]) -> bool:
    """The claim holds where each of the six numbers, in the order of `CLAIM.stated`, is as stated, to MARGIN."""
    variance, divided, fall, kept, off, ratio = found
    return (
        all(abs(number - 1) <= MARGIN for number in (variance, divided, ratio))
        and fall < 0.25
        and kept > 0.9
        and off < 0.05
    )


def draw(setting: Setting, width: int, keys: int, queries: int) -> Float[Tensor, "Q n"]:
    """Logits q . k; each query has keys of its own, so that the means are of independent numbers."""
    logits, size = [], 200
    for block in range(math.ceil(queries / size)):
        draws = streams.generator(setting.seed, "scaling", width, block, device=setting.device)
        q = torch.randn(size, width, generator=draws, device=setting.device)
        k = torch.randn(size, keys, width, generator=draws, device=setting.device)
        logits.append((k @ q[:, :, None])[..., 0])
    return torch.cat(logits)[:queries].double()


def measure(logit: Float[Tensor, "Q n"]) -> Softmax:
    """The means over queries."""
    p = logit.softmax(dim=-1)
    entropy = torch.special.entr(p).sum(dim=-1).mean()
    return Softmax(float(logit.var()), float(entropy), float(1 - p.square().sum(dim=-1).mean()))


def predict(width: int, keys: int, *, divided: bool) -> Softmax:
    """Exact: the integrals above on a grid of s, averaged over the law of |q|^2."""
    probability = (np.arange(400) + 0.5) / 400
    s = np.sqrt(stats.chi2.ppf(probability, width) / (width if divided else 1))  # quantiles of |q|, divided or not
    grid = np.geomspace(s[0], s[-1], 16)
    entropy, gradient = np.array([softmax_of_normals(float(value), keys) for value in grid]).T
    mean = [float(np.interp(s, grid, values).mean()) for values in (entropy, gradient)]
    return Softmax(1.0 if divided else float(width), *mean)


def softmax_of_normals(s: float, n: int) -> tuple[float, float]:
    """Mean entropy, and mean 1 - sum p^2, of a softmax over n independent normal logits of deviation s.

    By sums over log t and over l, both in steps of a tenth or less: each integrand bends over a width of 1 in them.
    """
    step = min(0.1, s / 20)
    edge = 8 * s
    logit = np.arange(-edge, edge + step, step)  # [l]
    density = np.exp(-((logit / s) ** 2) / 2)
    density /= density.sum()
    low, high = -math.log(n) - 6 * s - 30, 6 * s + 6  # L(t)^n is 1 below and 0 above
    log_t = np.arange(low, high, 0.1)  # [t]
    laplace, once, twice = (np.empty_like(log_t) for _ in range(3))
    for i, u in enumerate(log_t):
        te = np.exp(np.minimum(u + logit, 50.0))  # t e^l
        weight = density * np.exp(-te)
        laplace[i] = weight.sum()
        once[i] = (weight * logit * te).sum()
        twice[i] = (weight * te * te).sum()

    def integral(y: NDArray[np.float64]) -> float:
        return float(y.sum() * 0.1)  # dt / t = d log t

    log_z = integral(np.exp(-np.exp(np.minimum(log_t, 50.0))) - laplace**n)
    rest = laplace ** (n - 1)
    return log_z - n * integral(once * rest), 1 - n * integral(twice * rest)


def _picture(
    widths: Sequence[int], keys: int, found: dict[bool, list[Softmax]], exact: dict[bool, list[Softmax]]
) -> Figure:
    figure, axes = plots.figure(1, 3, width=3.7, height=3.3)
    names = ("variance", "entropy", "gradient")
    last = found[False][-1]
    titles = (
        f"At d = {widths[-1]} a logit's variance is {last.variance:.0f}",
        f"Entropy there: {last.entropy:.2f} of {math.log(keys):.2f} nats",
        f"Gradient there: {last.gradient / found[False][0].gradient:.0%} of that at {widths[0]}",
    )
    units = ("variance of q . k", f"entropy over {keys} keys (nats)", "gradient, 1 - sum p²")
    for ax, name, title, unit in zip(axes, names, titles, units, strict=True):
        for colour, divided in ((1, False), (0, True)):
            plots.curve(ax, np.array(widths), [getattr(e, name) for e in exact[divided]], colour=colour)
            y = [getattr(f, name) for f in found[divided]]
            ax.plot(widths, y, "o", color=plots.COLOURS[colour], markersize=4.5)
        ax.set_xscale("log", base=2)
        ax.set_xticks(list(widths), [f"{width}" for width in widths], minor=False)
        plots.label(ax, title, "width d of queries and keys", unit)
    axes[0].set_yscale("log")
    axes[1].set_ylim(0, 1.08 * math.log(keys))
    axes[2].set_ylim(0, 1.05)
    plots.level(axes[1], math.log(keys), "all keys alike: log n")
    axes[1].plot([], [], color=plots.COLOURS[0], label="q . k / sqrt(d)")
    axes[1].plot([], [], color=plots.COLOURS[1], label="q . k")
    axes[1].plot([], [], "o-", color=plots.INK, markersize=4.5, label="dots measured, lines exact")
    plots.legend(axes[1], "center right")
    return figure
