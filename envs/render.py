"""A figure of a world: its map, a value in every cell, a policy as arrows.

Only worlds with a map can be drawn. Nothing here touches pyplot or any other global state of matplotlib, and `envs`
does not import this module by itself: `from envs import render`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn.functional import one_hot

from envs.gridworld import MOVES
from envs.layout import LOOKS, Layout
from envs.picture import COLOURS, PAPER, layout_of, rgb
from envs.world import World

INK = "#20242c"
VALUES = LinearSegmentedColormap.from_list("values", ["#fbf8f1", "#d3e4e3", "#8dbfc4", "#3f8a98", "#17566b"])
LIGHT = 0.55  # paper on darker fills, ink on lighter ones


def draw(
    world: World,
    values: Float[Tensor, "S"] | None = None,
    policy: Shaped[Tensor, "S"] | Float[Tensor, "S A"] | None = None,
    *,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """The map with a value in every cell and the policy as arrows.

    Walls are dark, the goal is green, forbidden cells are amber, holes are blue. With values, the cells where an
    agent can stand are shaded from the lowest value to the highest, and keep their colour as a frame.

    Args:
        world: a world with a map.
        values: one number for each state.
        policy: an action for each state, or the probability of each action, which is the length of its arrow: ties are
            several arrows. Staying is a ring, an action that is no move is written by its number.
        title: a line above the map.
        ax: where to draw; without it, a new figure of fitting size.

    Returns:
        The axes; `ax.figure.savefig(path)` writes them.

    Raises:
        ValueError: when the world has no map.
    """
    layout = layout_of(world)
    if ax is None:
        side = float(np.clip(5 / max(layout.rows, layout.cols), 0.3, 0.8))  # inches a cell
        head = 0.35 if title else 0.1
        figure = Figure(figsize=(layout.cols * side + 0.2, layout.rows * side + head))
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0, 0, 1, (layout.rows * side + 0.1) / (layout.rows * side + head)))
    ax.set_xlim(-0.06, layout.cols + 0.06)
    ax.set_ylim(layout.rows + 0.06, -0.06)  # rows go down
    ax.set_aspect("equal")
    ax.set_axis_off()
    box = ax.get_window_extent()
    inches = float(min(box.width / layout.cols, box.height / layout.rows) / ax.figure.dpi)  # a cell
    if title:
        ax.set_title(title, fontsize=10, color=INK, pad=5)
    fills = _cells(ax, world, layout, values, inches)
    if values is not None and inches >= 0.26:
        _numbers(ax, world, layout, values, fills, inches, lifted=policy is not None)
    if policy is not None:
        _arrows(ax, world, layout, policy, fills, inches, lowered=values is not None and inches >= 0.26)
    return ax


def _cells(
    ax: Axes, world: World, layout: Layout, values: Tensor | None, inches: float
) -> Float[np.ndarray, "rows cols 3"]:
    """Draw the cells; returns the fill of each, [rows, cols, 3]."""
    fills = np.array([rgb(COLOURS[look]) for look in LOOKS])[layout.look[0].numpy()]
    framed = np.zeros((layout.rows, layout.cols), bool)
    state = layout.state.numpy()
    if values is not None:
        alive = (state >= 0) & world.mdp.lived().numpy()[state]
        number = values.detach().cpu().double().numpy()[state]
        low, high = number[alive].min(), number[alive].max()
        scale = Normalize(low, high if high > low else low + 1)
        fills[alive] = VALUES(scale(number[alive]))[:, :3]
        framed = alive & (layout.shows("goal") | layout.shows("forbidden") | layout.shows("hole")).numpy()
    for r, c in np.ndindex(*state.shape):
        look = LOOKS[int(layout.look[0, r, c])]
        gap = 0.0 if look == "wall" else 0.03
        ax.add_patch(Rectangle((c + gap, r + gap), 1 - 2 * gap, 1 - 2 * gap, facecolor=fills[r, c], linewidth=0))
        if framed[r, c]:
            inset, width = 0.075, 6.0 * inches  # points
            where, extent = (c + inset, r + inset), 1 - 2 * inset
            ax.add_patch(Rectangle(where, extent, extent, fill=False, edgecolor=COLOURS[look], linewidth=width))
        elif (look == "start" and values is None) or (look == "goal" and not framed[r, c]):
            _write(ax, c + 0.5, r + 0.5, look[0].upper(), fills[r, c], 22 * inches, bold=True)
    return fills


def _numbers(
    ax: Axes,
    world: World,
    layout: Layout,
    values: Tensor,
    fills: Float[np.ndarray, "rows cols 3"],
    inches: float,
    *,
    lifted: bool,
) -> None:
    """Write the value of every state in which something is decided."""
    lived = world.mdp.lived().numpy()
    largest = max((abs(v) for v, here in zip(values.tolist(), lived, strict=True) if here), default=0.0)
    digits = 1 if largest >= 1.995 else 2
    for s, ((r, c), value) in enumerate(zip(layout.cell.tolist(), values.tolist(), strict=True)):
        if lived[s] and layout.state[r, c] == s:
            written = f"{value:.{digits}f}" if largest < 99.5 else f"{value:.0f}"
            written = written.replace("-0.00", "0.00") if float(written) == 0 else written
            _write(ax, c + 0.5, r + (0.28 if lifted else 0.5), written, fills[r, c], 15 * inches)


def _arrows(
    ax: Axes,
    world: World,
    layout: Layout,
    policy: Tensor,
    fills: Float[np.ndarray, "rows cols 3"],
    inches: float,
    *,
    lowered: bool,
) -> None:
    """An arrow for each action, as long as it is likely."""
    lived = world.mdp.lived().numpy()
    probs = policy.detach().cpu().double()
    if probs.ndim == 1:
        probs = one_hot(policy.detach().cpu().long(), world.actions).double()
    longest = 0.2 if lowered else 0.36
    for s, (r, c) in enumerate(layout.cell.tolist()):
        if not lived[s] or layout.state[r, c] != s:
            continue
        x, y = c + 0.5, r + (0.68 if lowered else 0.5)
        ink = _ink(fills[r, c])
        largest = float(probs[s].max())
        for name, p in zip(world.action_names, probs[s].tolist(), strict=True):
            if p < 0.02:
                continue
            if name not in MOVES:
                _write(ax, x, y, name, fills[r, c], 13 * inches)
            elif name == "stay":
                ax.plot(x, y, "o", markersize=14 * inches, markeredgewidth=2.6 * inches, color=ink, fillstyle="none")
            else:
                dy, dx = (longest * p / largest * d / np.hypot(*MOVES[name]) for d in MOVES[name])
                lone = p > 0.98  # a single arrow is centred, several leave from the middle
                tail = (x - dx, y - dy) if lone else (x, y)
                style = {"arrowstyle": "-|>", "mutation_scale": 13 * inches, "linewidth": 2.4 * inches}
                style |= {"color": ink, "shrinkA": 0, "shrinkB": 0, "joinstyle": "miter"}
                ax.annotate("", (x + dx, y + dy), tail, arrowprops=style)


def _write(ax: Axes, x: float, y: float, words: str, fill: Any, size: float, *, bold: bool = False) -> None:
    weight = "bold" if bold else "normal"
    ax.text(x, y, words, ha="center", va="center_baseline", fontsize=size, color=_ink(fill), weight=weight)


def _ink(fill: Any) -> str:
    luminance = float(np.dot(fill, (0.299, 0.587, 0.114)))
    return INK if luminance > LIGHT else PAPER
