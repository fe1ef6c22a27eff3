"""A figure of a world: its map, a value in every cell, a policy as arrows, how often each cell is visited.

Only worlds with a map can be drawn. Nothing here touches pyplot or any other global state of matplotlib, and `envs`
does not import this module by itself: `from envs import render`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.patches import Rectangle
from torch import Tensor

from envs.layout import LOOKS
from envs.picture import AGENT, COLOURS, PAPER, layout_of, rgb
from envs.pixels import mosaic, tiles
from envs.render.canvas import LEGIBLE, VALUES, VISITS, Canvas, Fills, frame, write
from envs.render.canvas import margin as margin
from envs.render.marks import arrows, dots, numbers, signs, wind
from envs.world import World

FEW = 8  # starts or goals that are marked on a map of very many cells
MEANINGS = {"goal": "green: goal", "forbidden": "amber: forbidden, or a cliff", "hole": "blue: hole"}


def draw(
    world: World,
    values: Float[Tensor, "S"] | None = None,
    policy: Shaped[Tensor, "S"] | Float[Tensor, "S A"] | None = None,
    *,
    mode: int = 0,
    title: str | None = None,
    ax: Axes | None = None,
    scale: tuple[float, float] | None = None,
) -> Axes:
    """The map with a value in every cell and the policy as arrows.

    Walls are dark, the goal is green, forbidden cells are amber, holes are blue. With values, the cells where an
    agent can stand are shaded from the lowest value to the highest of all modes, and keep their colour as a frame
    and their letter in the corner. Cells too small for a number have their shade only; a map of very many cells has no
    arrows either.

    Args:
        world: a world with a map.
        values: one number for each state.
        policy: an action for each state, or the probability of each action, which is the length of its arrow: ties are
            several arrows. Staying is a ring, an action that is no move is written by its number.
        mode: which mode of the map is drawn (see `envs.layout`).
        title: a line above the map.
        ax: where to draw; without it, a new figure of fitting size.
        scale: the values of the lightest and the darkest shade, for pictures that are to be compared.

    Returns:
        The axes; `ax.figure.savefig(path)` writes them.

    Raises:
        ValueError: when the world has no map.
    """
    canvas = Canvas.open(world, mode, title, ax)
    fills = _cells(canvas, values, VALUES, scale)
    if canvas.fine:
        return canvas.ax
    if values is not None and canvas.inches >= LEGIBLE:
        numbers(canvas, values, fills, lifted=policy is not None)
    if policy is not None:
        arrows(canvas, policy, fills, lowered=values is not None and canvas.inches >= LEGIBLE)
    return canvas.ax


def draw_visits(
    world: World, visits: Float[Tensor, "S"], *, mode: int = 0, title: str | None = None, ax: Axes | None = None
) -> Axes:
    """The map with how often each state is visited; cells that never are have no number. Otherwise as `draw`."""
    canvas = Canvas.open(world, mode, title, ax)
    fills = _cells(canvas, visits, VISITS, (0.0, span(world, visits)[1]))
    if canvas.fine:
        dots(canvas, visits)
    elif canvas.inches >= LEGIBLE:
        numbers(canvas, visits, fills, lifted=False, visits=True)
    return canvas.ax


def span(world: World, values: Float[Tensor, "S"]) -> tuple[float, float]:
    """The lowest and the highest finite value of the states in which something is decided; (0, 1) without any."""
    known = values.detach().cpu().double()[world.mdp.lived()]
    known = known[known.isfinite()]
    return (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)


def key(world: World) -> str:
    """What the colours of a map's cells mean, those that are on it: "green: goal   amber: forbidden"."""
    looks = set(layout_of(world).look.flatten().tolist())
    return "   ".join(words for look, words in MEANINGS.items() if LOOKS.index(look) in looks)


def _cells(canvas: Canvas, values: Tensor | None, colours: Colormap, scale: tuple[float, float] | None = None) -> Fills:
    """Draw the cells; returns the fill of each, [rows, cols, 3]."""
    layout, ax = canvas.layout, canvas.ax
    looks = layout.look[canvas.mode].numpy()
    fills = np.array([rgb(COLOURS[look]) for look in LOOKS])[looks]
    alive = canvas.alive
    if values is not None:
        fills[alive] = _shade(canvas, values, colours, scale)[alive]
    if canvas.fine:
        ax.imshow(fills, extent=(0, layout.cols, layout.rows, 0), interpolation="antialiased")
        for look, colour in (("start", AGENT), ("goal", COLOURS["goal"])):
            marked = np.argwhere(looks == LOOKS.index(look))
            if len(marked) <= FEW:  # of many no single one is looked for
                y, x = marked.T + 0.5
                ax.plot(x, y, "o", color=colour, markeredgecolor=PAPER, markersize=8, clip_on=False)
        frame(ax, layout)
        return fills
    named = signs(layout, canvas.mode)
    inks = {(row, col): ink for row, col, ink in mosaic.inks(layout)}
    for r, c in np.ndindex(*looks.shape):
        look = LOOKS[int(looks[r, c])]
        gap = 0.0 if look == "wall" else 0.03
        ax.add_patch(Rectangle((c + gap, r + gap), 1 - 2 * gap, 1 - 2 * gap, facecolor=fills[r, c], linewidth=0))
        if values is not None and alive[r, c] and look not in ("floor", "start"):
            inset, width = 0.075, 6.0 * canvas.inches  # points
            where, extent = (c + inset, r + inset), 1 - 2 * inset
            ink = inks.get((r, c), COLOURS[look])
            ax.add_patch(Rectangle(where, extent, extent, fill=False, edgecolor=ink, linewidth=width))
        elif look in ("key", "door"):
            picture = tiles.tile(look, inks.get((r, c), COLOURS[look]), 64)
            ax.imshow(
                picture[2:, 2:],
                extent=(c + gap, c + 1 - gap, r + 1 - gap, r + gap),
                interpolation="antialiased",
                zorder=2,
            )
        if values is None or not alive[r, c]:
            write(ax, c + 0.5, r + 0.5, named[r][c], fills[r, c], 22 * canvas.inches, bold=True)
        elif canvas.inches >= LEGIBLE:  # in the corner, beside number and arrow
            write(ax, c + 0.17, r + 0.84, named[r][c], fills[r, c], 11 * canvas.inches, bold=True)
    wind(canvas)
    frame(ax, layout)  # an image has changed it
    return fills


def _shade(canvas: Canvas, values: Tensor, colours: Colormap, scale: tuple[float, float] | None) -> Fills:
    """The colour of each cell's value, by its place on the scale, by default from the lowest to the highest."""
    number = values.detach().cpu().double().numpy()
    low, high = scale or span(canvas.world, values)
    if canvas.fine and low > 0 and high / low > 1e3:  # a value that falls by a part a step, over very many steps
        number, low, high = np.log(np.maximum(number, low)), np.log(low), np.log(high)
    place = Normalize(low, high if high > low else low + 1, clip=True)(np.nan_to_num(number, posinf=high, neginf=low))
    shades: Fills = np.asarray(colours(place))[canvas.states][..., :3]
    return shades
