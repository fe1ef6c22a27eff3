"""What generation must remember: the state of linear attention, and the keys and values of softmax attention.

    linear    sum phi(k) v^T: d (d + 1) numbers a head, and d more for the running softmax, whatever the length
    softmax   a key and a value of every position: 2 n d numbers a head

So the cache is the larger from n = (d + 1) / 2 on. Both generate position by position: the linear layer by its
recurrence from the first position to the last, the softmax layer with a cache that holds all positions so far. Bytes
are those of the tensors kept between two tokens. Seconds are the processor's, in one thread, the least of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from backbones.attention import Attention, Cache
from backbones.initialise import build
from backbones.linear_attention import LinearAttention, State
from backbones.masks import CAUSAL, until
from experiments.attention_cost import best, one_thread, slope
from experiments.claim import Claim, Finding, Setting
from lab import plots, streams

WIDTH, HEADS = 256, 8
POSITIONS = tuple(2**power for power in range(2, 15, 2))  # 4 ... 16384
REPEATS = 30  # measurements of one step, of which the least counts
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
        "recurrent - parallel, at most": "< 1e-4",
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
        recurrent, outputs = stepped(setting, linear, x, positions)
        cached = looked_up(setting, softmax, x, positions)
        off = float((outputs - linear(x, CAUSAL)).abs().max())
    grown = [(b - a) / (n - m) for (a, b), (m, n) in zip(pairwise(cached.bytes), pairwise(positions), strict=True)]
    larger = next(n for n in range(1, positions[-1]) if n * grown[0] >= recurrent.bytes[0])
    slopes = slope(positions, recurrent.seconds), slope(positions[-3:], cached.seconds[-3:])
    found = [recurrent.bytes[-1] / recurrent.bytes[0], grown[-1], larger, *slopes, off]
    holds = [
        found[0] == 1,
        set(grown) == {2 * 4 * WIDTH},
        larger - 1 < (WIDTH // HEADS + 1) / 2 <= larger,
        abs(slopes[0]) <= MARGIN,
        slopes[1] > 0.5,
        off < 1e-4,
    ]
    return Finding(
        found=dict(zip(CLAIM.stated, found, strict=True)),
        holds=all(holds),
        verdict=f"after {positions[-1]} tokens a layer of linear attention holds {recurrent.bytes[-1] / 1024:.0f} KiB, "
        f"as after the first; the cache {cached.bytes[-1] / 2**20:.0f} MiB, and a token costs "
        f"{cached.seconds[-1] / recurrent.seconds[-1]:.0f} times the recurrence's time: one layer, one sequence",
        figure=_picture(positions, recurrent, cached, larger),
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


def stepped(setting: Setting, layer: LinearAttention, x: Tensor, positions: Sequence[int]) -> tuple[Course, Tensor]:
    """All positions by the recurrence; at those asked for, what is kept, and the time of a step, measured apart."""
    course, rows, state = Course(), [], layer.start(1)
    for t in range(positions[-1]):
        y, state = layer.step(x[:, t], state)
        rows.append(y)
        if t + 1 in positions:
            course.bytes.append(held(state))
            course.seconds.append(best(partial(layer.step, x[:, t], state), REPEATS, setting.device))
            setting.report((t + 1) / positions[-1] / 2, f"recurrent, token {t + 1}")
    return course, torch.stack(rows, dim=1)


def looked_up(setting: Setting, layer: Attention, x: Tensor, positions: Sequence[int]) -> Course:
    """With a cache of exactly the positions so far, at those asked for: the time of the last of them."""
    course = Course()
    for i, n in enumerate(positions):
        keys, values = (part.contiguous() for part in layer.read(x[:, :n]))
        cache, place = Cache(keys, values), torch.tensor([[n - 1]], device=x.device)
        mask = until(place, n)
        course.bytes.append(held((cache.keys, cache.values)))
        work = partial(layer, x[:, n - 1 : n], mask, cache=cache, positions=place)
        course.seconds.append(best(work, REPEATS, setting.device))
        setting.report(0.5 + (i + 1) / len(positions) / 2, f"cached, token {n}")
    return course


def held(state: State) -> int:
    """Bytes of the memory behind some tensors, of one sequence."""
    return sum(part.untyped_storage().nbytes() for part in state)


def _picture(positions: Sequence[int], recurrent: Course, cached: Course, larger: int) -> Figure:
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
        f"Linear attention keeps {recurrent.bytes[-1] / 1024:.0f} KiB, always",
        "tokens generated",
        "memory of one sequence (KiB)",
    )
    plots.label(right, "Nor does it slow down", "tokens generated", "time of a token (µs)")
    plots.legend(left, "lower right")
    return figure
