"""What a layer of causal attention costs as the sequence grows: seconds against length, on logarithmic axes.

    softmax        torch's `scaled_dot_product_attention`           n^2 / 2 pairs
    elu, softmax   linear attention, `backbones.linear_attention`   n (C + d) products a feature
    FLASH          mixed chunks, `backbones.gated.mixed`            n (C + s) products a feature

Timed is what comes after the projections, which cost n in every kind, in one thread: the processor's time of that
thread, so that other work on the machine counts little, and the best of several. (On another device: the clock.) The
operations are those of the matrix products, counted by torch; for softmax, of whose fused kernel torch counts nothing
on a processor, those of the same attention written as two products over all pairs.

The claim holds where every slope over the upper half of the lengths (n >= 2048) is within MARGIN of what is stated. At
shorter lengths the cost of a call counts too; the slope over all lengths stands beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from backbones.gated import mixed
from backbones.linear_attention import elu_causal, softmax_causal
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams

LENGTHS = tuple(2**power for power in range(8, 15))  # 256 ... 16384
HEADS, WIDTH, SHARED, CHUNK = 8, 32, 128, 256  # heads of 32; FLASH's s and C
KINDS = ("softmax", "linear, elu", "linear, softmax", "mixed chunks")
MARGIN = 0.25  # of a slope; fixed before the first run

CLAIM = Claim(
    claim="The cost of softmax attention grows with the square of the length; that of linear attention, and of FLASH's "
    "mixed chunks, with the length.",
    source="Katharopoulos et al. 2020, sec. 3.2 and fig. 1; Shen et al. 2021, sec. 3.2; Hua et al. 2022, sec. 3.2 and "
    "fig. 4",
    stated={f"slope of seconds, n >= {LENGTHS[3]}: {kind}": 2 if kind == "softmax" else 1 for kind in KINDS},
)


def run(setting: Setting) -> Finding:
    """Lengths 256 ... 16384, slopes over the upper four."""
    return measure(setting, LENGTHS, repeats=8)


def measure(setting: Setting, lengths: Sequence[int], repeats: int) -> Finding:
    """The experiment over any lengths; slopes are fitted over the upper half of them (the middle one included)."""
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    operations: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with torch.inference_mode(), one_thread():
        for i, length in enumerate(lengths):
            for kind, work in works(setting, length).items():
                seconds[kind].append(best(work, repeats, setting.device))
                operations[kind].append(count(kind, work, length))
            setting.report((i + 1) / len(lengths), f"n = {length}")
    half = len(lengths) // 2
    slopes = {kind: slope(lengths[half:], seconds[kind][half:]) for kind in KINDS}
    found = dict(zip(CLAIM.stated, slopes.values(), strict=True))
    whole = {kind: slope(lengths, seconds[kind]) for kind in KINDS}
    cheaper = [n for n, a, b in zip(lengths, seconds["softmax"], seconds["mixed chunks"], strict=True) if b < a]
    return Finding(
        found=dict(found),
        holds=as_stated(slopes),
        verdict=f"over n = {lengths[half]} ... {lengths[-1]} softmax grows as n^{slopes['softmax']:.2f} and the others "
        f"as n^{min(list(slopes.values())[1:]):.2f} to n^{max(list(slopes.values())[1:]):.2f} (margin {MARGIN}); mixed "
        f"chunks are the cheaper {f'from n = {cheaper[0]}' if cheaper else 'nowhere here'}, on one thread, without "
        "gradients",
        figure=_picture(lengths, seconds, slopes),
        header=(
            "attention",
            f"slope, n >= {lengths[half]}",
            f"n >= {lengths[0]}",
            "of operations",
            f"ms at n = {lengths[-1]}",
            "GFLOP there",
        ),
        rows=[
            [
                kind,
                f"{slopes[kind]:.2f}",
                f"{whole[kind]:.2f}",
                f"{slope(lengths[half:], operations[kind][half:]):.2f}",
                f"{1000 * seconds[kind][-1]:.0f}",
                f"{operations[kind][-1] / 1e9:.1f}",
            ]
            for kind in KINDS
        ],
    )


def as_stated(slopes: Mapping[str, float]) -> bool:
    """The rule at the top of the file."""
    return all(abs(slopes[kind] - (2 if kind == "softmax" else 1)) <= MARGIN for kind in KINDS)


def works(setting: Setting, length: int) -> dict[str, Callable[[], object]]:
    """One layer of each kind over `length` positions of width 256, after its projections."""
    device = setting.device
    draws = streams.generator(setting.seed, "attention", length, device=device)
    q, k, v = (torch.randn(1, HEADS, length, WIDTH, generator=draws, device=device) for _ in range(3))
    looks = torch.randn(1, 4, length, SHARED, generator=draws, device=device)
    values = torch.randn(1, length, 2 * HEADS * WIDTH, generator=draws, device=device)  # e = 2 D
    chunk = min(CHUNK, length)
    bias, known = torch.zeros(chunk, chunk, device=device), torch.ones(1, length, dtype=torch.bool, device=device)
    return {
        "softmax": lambda: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        "linear, elu": lambda: elu_causal(q, k, v),
        "linear, softmax": lambda: softmax_causal(q, k, v),
        "mixed chunks": lambda: mixed(looks, values, bias, known, causal=True),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread of the processor."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The least seconds that `work` took, after one call that is not counted."""
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    taken = []
    for _ in range(repeats + 1):
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return min(taken[1:])


def count(kind: str, work: Callable[[], object], length: int) -> float:
    """Floating-point operations of the matrix products, two for each multiplication."""
    if kind == "softmax":
        q, k, v = (torch.empty(1, HEADS, length, WIDTH, device="meta") for _ in range(3))  # shapes without numbers
        work = lambda: (q @ k.mT).softmax(-1) @ v  # noqa: E731 - like the others, it is called once
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def slope(x: Sequence[int | float], y: Sequence[float]) -> float:
    """Of log y against log x, by least squares."""
    a, b = ([math.log(value) for value in values] for values in (x, y))
    mean = sum(a) / len(a)
    return sum((p - mean) * r for p, r in zip(a, b, strict=True)) / sum((p - mean) ** 2 for p in a)


def _picture(lengths: Sequence[int], seconds: dict[str, list[float]], slopes: dict[str, float]) -> Figure:
    figure, (left, right) = plots.figure(1, 2, width=4.8, height=3.5)
    for colour, (kind, taken) in enumerate(seconds.items()):
        plots.curve(left, np.array(lengths), [1000 * s for s in taken], f"{kind}:  n^{slopes[kind]:.2f}", colour)
        plots.curve(right, np.array(lengths), [1e6 * s / n for s, n in zip(taken, lengths, strict=True)], kind, colour)
        for ax, y in ((left, 1000 * taken[-1]), (right, 1e6 * taken[-1] / lengths[-1])):
            ax.plot(lengths[-1], y, "o", color=plots.COLOURS[colour], markersize=4)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(list(lengths), [f"{n}" for n in lengths], minor=False)
    rest = sorted(of for kind, of in slopes.items() if kind != "softmax")
    grown = {kind: taken[-1] / lengths[-1] / (taken[0] / lengths[0]) for kind, taken in seconds.items()}  # a position
    most = max(of for kind, of in grown.items() if kind != "softmax")
    plots.label(
        left,
        f"Softmax: n^{slopes['softmax']:.2f}; the others: n^{rest[0]:.2f} to n^{rest[-1]:.2f}",
        "length n (positions)",
        "time of a layer (ms)",
    )
    plots.label(
        right,
        f"A position: softmax {grown['softmax']:.0f} times as long, others {most:.1f}",
        "length n (positions)",
        "time a position (µs)",
    )
    plots.legend(left, "upper left")
    return figure
