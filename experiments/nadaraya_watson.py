"""Nadaraya-Watson regression is attention: the same numbers as an independent implementation, and the weights to see.

The peer is statsmodels' `KernelReg(reg_type="lc")`, the local constant estimator, at a fixed bandwidth. Both are given
the same points, with one regressor and with two (where its product of Gaussians is our Gaussian of the distance), and
asked at places between them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from matplotlib.figure import Figure
from torch import Tensor

from backbones.kernel_attention import gaussian_attend, nadaraya_watson
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams

BANDWIDTHS = (0.06, 0.3, 1.5)  # too narrow, about right, too wide for the curve below
NOISE = 0.5

CLAIM = Claim(
    claim="Nadaraya-Watson regression is attention: queries, keys and values are where one asks, where one knows and "
    "what one knows, and its weights are a softmax of -|q - k|^2 / 2 h^2.",
    source="Nadaraya 1964; Watson 1964; Zhang et al., Dive into Deep Learning, sec. 11.2",
    stated={
        "largest difference to statsmodels, one regressor": "< 1e-10",
        "largest difference to statsmodels, two regressors": "< 1e-10",
        "largest difference to torch's dot-product attention": "< 1e-10",
    },
)


def run(setting: Setting) -> Finding:
    """60 points, asked at 200 places."""
    return compare(setting, points=60, places=200)


def compare(setting: Setting, points: int, places: int) -> Finding:
    """The experiment at any sizes; statsmodels computes on the processor, and so does this.

    Raises:
        ModuleNotFoundError: where statsmodels is not installed.
    """
    from statsmodels.nonparametric.kernel_regression import KernelReg

    worst: dict[int, float] = {}
    dots = 0.0
    for regressors in (1, 2):
        x, y, q = data(setting, points, places, regressors)
        differences = []
        for h in BANDWIDTHS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of its generator, from which a given h never draws
                peer = KernelReg(y.numpy(), x.numpy(), "c" * regressors, reg_type="lc", bw=np.full(regressors, h))
            theirs = peer.fit(q.numpy())[0]
            ours = nadaraya_watson(q[None], x[None], y[None, :, None], h)[0][0, :, 0]
            differences.append(float((ours - torch.from_numpy(theirs)).abs().max()))
            fast = gaussian_attend(q[None, None], x[None, None], y[None, None, :, None], h)[0, 0, :, 0]
            dots = max(dots, float((ours - fast).abs().max()))
            setting.report((3 * regressors - 2 + BANDWIDTHS.index(h)) / 6, f"{regressors} regressors, h = {h:g}")
        worst[regressors] = max(differences)
    found = [worst[1], worst[2], dots]
    x, y, q = data(setting, points, places, 1)
    fits = [nadaraya_watson(q[None], x[None], y[None, :, None], h)[0][0, :, 0] for h in BANDWIDTHS]
    error = [float((fit - curve(q)).square().mean()) for fit in fits]
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=as_stated(found),
        verdict=f"at {places} places and bandwidths {', '.join(f'{h:g}' for h in BANDWIDTHS)} attention differs from "
        f"statsmodels by at most {max(worst.values()):.1e}, in float64",
        figure=_picture(x, y, q, max(worst.values())),
        header=("bandwidth", "mean squared error to the true curve"),
        rows=[[f"{h:g}", f"{e:.3f}"] for h, e in zip(BANDWIDTHS, error, strict=True)],
    )


def as_stated(differences: Sequence[float]) -> bool:
    """The claim holds where every difference is below 1e-10: rounding in float64, of values of a few units."""
    return all(difference < 1e-10 for difference in differences)


def curve(x: Float64[Tensor, "n regressors"]) -> Float64[Tensor, "n"]:
    """The truth: 2 sin x + x^0.8 (Dive into Deep Learning, sec. 11.2), times a wave of the second regressor."""
    first = 2 * x[:, 0].sin() + x[:, 0].clamp(min=0) ** 0.8
    return first if x.shape[1] == 1 else first * x[:, 1].cos()


def data(
    setting: Setting, points: int, places: int, regressors: int
) -> tuple[Float64[Tensor, "n r"], Float64[Tensor, "n"], Float64[Tensor, "m r"]]:
    """Points with noise, sorted by the first regressor, and where to ask; all in [0, 5]."""
    draws = streams.generator(setting.seed, "nadaraya-watson", regressors)
    x = 5 * torch.rand(points, regressors, generator=draws, dtype=torch.float64)
    x = x[x[:, 0].argsort()]
    y = curve(x) + NOISE * torch.randn(points, generator=draws, dtype=torch.float64)
    line = torch.linspace(0, 5, places, dtype=torch.float64)[:, None]
    rest = 5 * torch.rand(places, regressors - 1, generator=draws, dtype=torch.float64)
    return x, y, torch.cat([line, rest], dim=1)


def _picture(x: Float64[Tensor, "n 1"], y: Float64[Tensor, "n"], q: Float64[Tensor, "m 1"], worst: float) -> Figure:
    figure, (left, right) = plots.figure(1, 2, width=4.8, height=3.6)
    known, asked = x[:, 0].numpy(), q[:, 0].numpy()
    left.plot(known, y.numpy(), "o", color=plots.INK, markersize=3, alpha=0.55, label="points")
    left.plot(asked, curve(q).numpy(), color=plots.INK, linewidth=1, linestyle=(0, (4, 3)), label="the true curve")
    for colour, h in zip((1, 0, 2), BANDWIDTHS, strict=True):
        out, _ = nadaraya_watson(q[None], x[None], y[None, :, None], h)
        plots.curve(left, asked, out[0, :, 0].numpy(), f"attention, h = {h:g}", colour)
    plots.label(left, f"Attention is the regression to {worst:.0e}", "x", "y")
    low, high = float(y.min()), float(y.max())
    left.set_ylim(low - 0.45 * (high - low), high + 0.08 * (high - low))  # room for the names
    left.legend(loc="lower center", ncols=2, frameon=False, fontsize=8, labelcolor=plots.INK)
    _, weights = nadaraya_watson(q[None], x[None], y[None, :, None], BANDWIDTHS[1])
    near = (q - x[:, 0]).abs()  # [m, n]
    reach = float((weights[0] * near).sum(dim=1).mean())
    drawn = right.pcolormesh(known, asked, weights[0].numpy(), cmap="Blues", shading="nearest", rasterized=True)
    right.grid(visible=False)
    bar = figure.colorbar(drawn, ax=right, pad=0.02)
    bar.set_label("weight (a row sums to 1)", color=plots.INK)
    bar.outline.set_visible(False)
    plots.label(
        right,
        f"Its weights at h = {BANDWIDTHS[1]:g} look {reach:.2f} away on average",
        "key: x of a point",
        "query: x of a prediction",
    )
    return figure
