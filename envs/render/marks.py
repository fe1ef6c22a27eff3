"""What is written into the cells of a figure: numbers, arrows, dots."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from envs.gridworld import MOVES
from envs.layout import LOOKS, Layout
from envs.render.canvas import VISITS, Canvas, Fills, ink, write
from envs.world import World

RARE = 0.0095  # visits below it are not written


def signs(layout: Layout, mode: int) -> list[list[str]]:
    """What is written into each cell of the bare map: the glyphs of starts, goals and portals, and of uncommon floors.

    A floor that is one only in this mode has none: its glyph is that of the key or door which it was.
    """
    looks, first = layout.look[mode].tolist(), layout.look[0].tolist()
    floors = Counter(layout.glyphs[r][c] for r, c in layout.shows("floor").nonzero().tolist())
    silent = "." if floors["."] else "".join(glyph for glyph, _ in floors.most_common(1))  # FrozenLake's floor is F

    def sign(r: int, c: int) -> str:
        look, glyph = LOOKS[looks[r][c]], layout.glyphs[r][c]
        told = look in ("start", "goal", "portal") or (look == "floor" and glyph != silent)
        return glyph if told and looks[r][c] == first[r][c] else ""

    return [[sign(r, c) for c in range(layout.cols)] for r in range(layout.rows)]


def wind(canvas: Canvas) -> None:
    """Below each column an arrow where the wind blows, and how many cells far."""
    for col, up in enumerate(canvas.layout.wind):
        if up:
            y, size = canvas.layout.rows + 0.32, 15 * canvas.inches
            write(canvas.ax, col + 0.5, y, ("\u2191" if up > 0 else "\u2193") + str(abs(up)), (1, 1, 1), size)


def numbers(canvas: Canvas, values: Tensor, fills: Fills, *, lifted: bool, visits: bool = False) -> None:
    """Write the value of every state in which something is decided, in as few digits as tell them apart.

    Of visits each has two significant digits, and what is next to none is left out.
    """
    number = values.detach().cpu().double().numpy()
    lived = number[canvas.world.mdp.lived().numpy() & np.isfinite(number)]
    largest = float(np.abs(lived).max(initial=0.0))
    whole = (largest >= 1.995 or visits) and bool((lived == lived.round()).all())
    digits = 0 if largest >= 99.5 or whole else 1 if largest >= 1.995 else 2
    for r, c in np.argwhere(canvas.alive):
        value = float(number[canvas.states[r, c]])
        if visits and value < RARE:
            continue
        written = _written(value, digits) if whole or not visits else _twice(value)
        size = min(15.0, 52.0 / len(written)) * canvas.inches
        write(canvas.ax, c + 0.5, r + (0.28 if lifted else 0.5), written, fills[r, c], size)


def arrows(canvas: Canvas, policy: Tensor, fills: Fills, *, lowered: bool) -> None:
    """An arrow for each action, as long as it is likely."""
    probs = policy.detach().cpu().double()
    if probs.ndim == 1:
        probs = one_hot(policy.detach().cpu().long(), canvas.world.actions).double()
    longest, inches = 0.22 if lowered else 0.36, canvas.inches
    for r, c in np.argwhere(canvas.alive):
        x, y = c + 0.5, r + (0.68 if lowered else 0.5)
        colour = ink(fills[r, c])
        p_of = probs[canvas.states[r, c]]
        taken = _named(canvas.world, p_of)
        largest = max(p for _, p in taken)
        head = 13 if len(taken) < 3 else 8  # of arrows
        for name, p in taken:
            if name not in MOVES:
                write(canvas.ax, x, y, name, fills[r, c], (13 if lowered else min(22, 60 / len(name))) * inches)
            elif name == "stay":
                size, width = 14 * inches, 2.6 * inches
                canvas.ax.plot(x, y, "o", color=colour, markersize=size, markeredgewidth=width, fillstyle="none")
            else:
                dy, dx = (longest * p / largest * d / np.hypot(*MOVES[name]) for d in MOVES[name])
                lone = p > 0.98  # a single arrow is centred, several leave from the middle
                tail = (x - dx, y - dy) if lone else (x, y)
                style = {"arrowstyle": "-|>", "mutation_scale": head * inches, "linewidth": 0.18 * head * inches}
                style |= {"color": colour, "shrinkA": 0, "shrinkB": 0, "joinstyle": "miter"}
                canvas.ax.annotate("", (x + dx, y + dy), tail, arrowprops=style)


def _written(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return "?" if math.isnan(value) else "\u221e" if value > 0 else "-\u221e"
    words = f"{value:.{digits}f}"
    return words.lstrip("-") if float(words) == 0 else words


def _twice(visits: float) -> str:
    """Two significant digits, without an exponent."""
    return f"{visits:.{0 if visits >= 9.95 else 1 if visits >= 0.995 else 2 if visits >= 0.0995 else 3}f}"


def _named(world: World, probs: Float[Tensor, "A"]) -> list[tuple[str, float]]:
    """What to draw for the likely actions: the moves, "left 2" as left; of others only the first, "stake 3" as 3."""
    found: dict[str, float] = {}
    for name, p in zip(world.action_names, probs.tolist(), strict=True):
        words = name.split()
        short = name if name in MOVES else words[0] if words[0] in MOVES else words[-1]
        if p >= 0.02 and (short in MOVES or not found):
            found[short] = found.get(short, 0.0) + p
    return list(found.items())


def dots(canvas: Canvas, visits: Tensor) -> None:
    """On a map whose cells are too small to be seen: a dot on each cell that is visited."""
    often = visits.detach().cpu().numpy()[canvas.states]
    rows, cols = np.nonzero(canvas.alive & (often > 1e-3 * often[canvas.alive].max()))
    size = max(0.9, 72 * canvas.inches)  # points
    colour = VISITS(0.95)
    canvas.ax.scatter(cols + 0.5, rows + 0.5, s=size**2, marker="s", color=colour, linewidths=0, rasterized=True)
