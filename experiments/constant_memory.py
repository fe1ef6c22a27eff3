"""What generation must remember: the state of linear attention, and the keys and values of softmax attention.

    linear    sum phi(k) v^T: d (d + 1) numbers a head, and d more for the running softmax, whatever the length
    softmax   a key and a value of every position: 2 n d numbers a head

So the cache is the larger from n = (d + 1) / 2 on. The linear layer goes by its recurrence from the first position to
the last. The softmax layer reads what comes before a position that is looked at into a cache of that many slots, in
blocks, and goes that last step alone. Whatever both answer on the way is compared with their parallel forms. Bytes are
those of all tensors that are alive between two tokens, less those that were before the first; seconds are the
processor's, in one thread, the least of several.

The claim holds where the state after the last position is as large as after the first that is looked at, every token
makes the cache larger by a key and a value, and the cache is the larger from the position above; where the slope of
seconds a token is at most MARGIN for the recurrence and above 0.5 for the cache; and where the answers agree to 1e-4.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from backbones.attention import Attention, Cache
from backbones.initialise import build
from backbones.linear_attention import LinearAttention
from backbones.masks import CAUSAL, until
from experiments.attention_cost import best, one_thread, slope
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams

WIDTH, HEADS = 256, 8
POSITIONS = tuple(2**power for power in range(2, 15, 2))  # 4 ... 16384
REPEATS = 30  # measurements of one step, of which the least counts
BLOCK = 256  # positions read into the cache at once
MARGIN = 0.15  # of a slope of seconds, fixed before the first run

CLAIM = Claim(
    claim="The recurrent form of linear attention generates with memory and time a token that do not depend on how "
    "many came before; with softmax attention both grow with them.",
    source="Katharopoulos et al. 2020, secs. 3.4 and 4.2.1, and table 4",
    stated={
        "bytes of state after 16384 tokens over after 4": 1,
        "bytes of the cache a token": 2 * 4 * WIDTH,
        "tokens from which the cache is the larger": (WIDTH // HEADS + 1) / 2,
        "slope of seconds a token, recurrent": 0,
        "slope of seconds a token, cached, n >= 1024": "> 0.5",
        "step by step - parallel, both, at most": "< 1e-4",
    },
)


@dataclass
class Course:
    """Of one layer, at each position that was looked at."""

    seconds: list[float] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)


def run(setting: Setting) -> Finding:
    """A layer of width 256 with 8 heads, to position 16384."""
    return generate(setting, POSITIONS)


def generate(setting: Setting, positions: Sequence[int]) -> Finding:
    """The experiment up to any position; the last three make the slope of the cache."""
    draws = streams.generator(setting.seed, "constant memory")
    linear = build(lambda: LinearAttention(WIDTH, HEADS), draws).to(setting.device)
    softmax = build(lambda: Attention(WIDTH, HEADS), draws).to(setting.device)
    x = torch.randn(1, positions[-1], WIDTH, generator=draws).to(setting.device)
    with torch.inference_mode(), one_thread():
        recurrent, off = stepped(setting, linear, x, positions)
        cached, wrong = looked_up(setting, softmax, x, positions)
    grown = [(b - a) / (n - m) for (a, b), (m, n) in zip(pairwise(cached.bytes), pairwise(positions), strict=True)]
    token = max(grown, key=lambda bytes: abs(bytes - 2 * 4 * WIDTH))  # the furthest from what is stated
    larger = next(n for n in range(1, positions[-1]) if n * token >= recurrent.bytes[0])
    slopes = slope(positions, recurrent.seconds), slope(positions[-3:], cached.seconds[-3:])
    numbers = [recurrent.bytes[-1] / recurrent.bytes[0], token, float(larger), *slopes, max(off, wrong)]
    found = dict(zip(CLAIM.stated, numbers, strict=True))
    return Finding(
        found=dict(found),
        holds=as_stated(found),
        verdict=f"after {positions[-1]} tokens a layer of linear attention holds {recurrent.bytes[-1] / 1024:.0f} KiB "
        f"(after {positions[0]}: {recurrent.bytes[0] / 1024:.0f}), the cache {cached.bytes[-1] / 2**20:.0f} MiB, and a "
        f"token costs {cached.seconds[-1] / recurrent.seconds[-1]:.0f} times the recurrence's time: one layer, one "
        "sequence",
        figure=_picture(positions, recurrent, cached, larger, slopes),
        header=("token", "state (KiB)", "cache (KiB)", "recurrent (us)", "cached (us)"),
        rows=[
            [
                f"{n}",
                f"{recurrent.bytes[i] / 1024:.1f}",
                f"{cached.bytes[i] / 1024:.1f}",
                f"{1e6 * recurrent.seconds[i]:.0f}",
                f"{1e6 * cached.seconds[i]:.0f}",
            ]
            for i, n in enumerate(positions)
        ],
    )


def as_stated(found: Mapping[str, float]) -> bool:
    """The rule at the top of the file."""
    ratio, token, larger, recurrent, cached, off = (found[name] for name in CLAIM.stated)
    return (
        ratio == 1
        and token == 2 * 4 * WIDTH
        and larger - 1 < (WIDTH // HEADS + 1) / 2 <= larger
        and abs(recurrent) <= MARGIN
        and cached > 0.5
        and off < 1e-4
    )


def stepped(setting: Setting, layer: LinearAttention, x: Tensor, positions: Sequence[int]) -> tuple[Course, float]:
    """All positions by the recurrence, and how far they are from the parallel form at most.

    At the positions asked for it notes what is kept; the time of a step is measured apart.
    """
    course, out = Course(), torch.empty_like(x)
    before = alive()
    state = layer.start(1)
    for t in range(positions[-1]):
        out[:, t], state = layer.step(x[:, t], state)
        if t + 1 in positions:
            course.bytes.append(alive() - before)
            course.seconds.append(best(partial(layer.step, x[:, t], state), REPEATS, setting.device))
            setting.report((t + 1) / positions[-1] / 2, f"recurrent, token {t + 1}")
    return course, float((out - layer(x, CAUSAL)).abs().max())


def looked_up(setting: Setting, layer: Attention, x: Tensor, positions: Sequence[int]) -> tuple[Course, float]:
    """With a cache of exactly the positions so far, and how far the outputs are from the parallel form at most."""
    course, out, cache, done = Course(), torch.empty_like(x), None, 0
    before = alive()
    for i, n in enumerate(positions):
        cache = larger_cache(layer, x, n, cache)
        for start in range(done, n - 1, BLOCK):
            extend(layer, x, out, cache, start, min(start + BLOCK, n - 1))
        extend(layer, x, out, cache, n - 1, n)
        course.bytes.append(alive() - before)
        course.seconds.append(best(partial(extend, layer, x, out, cache, n - 1, n), REPEATS, setting.device))
        done = n
        setting.report(0.5 + (i + 1) / len(positions) / 2, f"cached, token {n}")
    return course, float((out - layer(x, CAUSAL)).abs().max())


def larger_cache(layer: Attention, x: Tensor, slots: int, old: Cache | None) -> Cache:
    """A cache of `slots` positions that begins with what the old one holds."""
    keys, values = (x.new_zeros(1, HEADS, slots, layer.head_width) for _ in range(2))
    if old is not None:
        keys[:, :, : old.keys.shape[2]], values[:, :, : old.values.shape[2]] = old.keys, old.values
    return Cache(keys, values)


def extend(layer: Attention, x: Tensor, out: Tensor, cache: Cache, start: int, end: int) -> None:
    """Store positions start ... end - 1 of x in the cache, and what they see of it in `out`."""
    places = torch.arange(start, end, device=x.device)[None]
    mask = until(places, cache.keys.shape[2])
    out[:, start:end] = layer(x[:, start:end], mask, cache=cache, positions=places)


def alive() -> int:
    """Bytes of the memory behind all tensors that anything still holds."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter) and not thing.is_meta]
    return sum({part.data_ptr(): part.nbytes() for part in (tensor.untyped_storage() for tensor in tensors)}.values())


def _picture(
    positions: Sequence[int], recurrent: Course, cached: Course, larger: int, slopes: tuple[float, float]
) -> Figure:
    figure, (left, right) = plots.figure(1, 2, width=4.6, height=3.4)
    for colour, (name, course) in enumerate((("softmax: cache", cached), ("linear: state", recurrent))):
        plots.curve(left, np.array(positions), [b / 1024 for b in course.bytes], name, colour)
        plots.curve(right, np.array(positions), [1e6 * s for s in course.seconds], name, colour)
        left.plot(positions, [b / 1024 for b in course.bytes], "o", color=plots.COLOURS[colour], markersize=3.5)
        right.plot(positions, [1e6 * s for s in course.seconds], "o", color=plots.COLOURS[colour], markersize=3.5)
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(list(positions), [f"{n}" for n in positions], minor=False)
    left.axvline(
        larger, color=plots.INK, linewidth=1, linestyle=(0, (4, 3)), label=f"the cache is larger from {larger} on"
    )
    left.set_ylim(bottom=0.3)  # room for the names
    plots.label(
        left,
        f"State {recurrent.bytes[0] / 1024:.0f} KiB at {positions[0]}, {recurrent.bytes[-1] / 1024:.0f} at "
        f"{positions[-1]}; cache {cached.bytes[-1] / 2**20:.0f} MiB",
        "tokens generated",
        "memory of one sequence (KiB)",
    )
    title = f"A token's time: n^{round(slopes[0], 2) + 0.0:.2f}; with a cache n^{slopes[1]:.2f}"  # + 0.0: no -0.00
    plots.label(right, title, "tokens generated", "time of a token (µs)")
    plots.legend(left, "lower right")
    return figure
