"""`report.png` of `qx solve`: a row of panels for each mode of the map, or curves for a walk too long for a map."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import envs
from envs import render
from envs.gridworld import MOVES
from envs.render.canvas import LEGIBLE
from lab import plots
from qx.answer import Answer

MODES = 4  # drawn; more are told of
WALK = 20  # cells of a map of one row, beyond which it becomes a curve
PANEL = 4.2  # inches: the longer side of a map
NARROW = 2.8  # inches: the least width of a panel, so that its title fits
EDGE, GAP, HEAD = 0.2, 0.35, 0.42  # inches: around the page, between panels, above each


class Titles(NamedTuple):
    """What the panels show: whose values, which actions, which visits."""

    values: str
    actions: str
    visits: str


def save(path: Path, world: envs.World, found: Answer, titles: Titles) -> None:
    """Write the picture of a world whose states are all on one map.

    Args:
        path: of the PNG.
        world: what is drawn.
        found: its values, policy and visits.
        titles: of its panels.
    """
    assert world.layout is not None
    walk = world.layout.rows == 1 and world.layout.cols > WALK
    plots.save(_curves(world, found, titles) if walk else _maps(world, found, titles), path)


def _maps(world: envs.World, found: Answer, titles: Titles) -> Figure:
    assert world.layout is not None
    layout = world.layout
    modes = range(min(MODES, len(layout.modes)))
    side = PANEL / max(layout.rows, layout.cols)
    moves = any(name.split()[0] in MOVES for name in world.action_names)
    numbers = "below" if side >= LEGIBLE else "numbers"  # smaller cells have room for the action only
    values = titles.values + ("" if moves else f"; {numbers}: the action")
    width, height = max(NARROW, layout.cols * side), (layout.rows + render.margin(layout)) * side
    stacked = len(layout.modes) == 1 and layout.cols > 2.2 * layout.rows
    across, down = (1, 3) if stacked else (3, len(modes))
    inches = (2 * EDGE + across * width + (across - 1) * GAP, EDGE + down * (height + HEAD) + (down - 1) * GAP / 2)
    page = Figure(figsize=inches, facecolor="white")

    def place(i: int) -> Axes:
        row, column = divmod(i, across)
        left = EDGE + column * (width + GAP)
        bottom = inches[1] - (row + 1) * (HEAD + height) - row * GAP / 2
        return page.add_axes((left / inches[0], bottom / inches[1], width / inches[0], height / inches[1]))

    for m in modes:
        name = world.name if len(layout.modes) == 1 else f"{world.name}: {layout.modes[m] or 'at first'}"
        if m == MODES - 1 and len(layout.modes) > MODES:
            name += f" (and {len(layout.modes) - MODES} more modes)"
        render.draw(world, mode=m, title=name, ax=place(3 * m))
        render.draw(world, found.values, found.arrows, mode=m, title=values, ax=place(3 * m + 1))
        render.draw_visits(world, found.visits, mode=m, title=titles.visits, ax=place(3 * m + 2))
    return page


def _curves(world: envs.World, found: Answer, titles: Titles) -> Figure:
    """A walk: value, actions and visits of each cell, from left to right."""
    assert world.layout is not None
    lived = world.mdp.lived().numpy()
    cell = world.layout.cell[:, 1].numpy()[lived]
    made, (top, middle, bottom) = plots.figure(3, 1, width=7.5, height=2.4)
    plots.curve(top, cell, found.values.numpy()[lived])
    plots.label(top, f"{world.name}: {titles.values}", y="value")
    actions, names = _numbered(world)
    state, action = np.nonzero((found.arrows.numpy() > 0)[lived] & _distinct(world)[lived])
    middle.scatter(cell[state], actions[action], s=24 if names else 7, color=plots.COLOURS[1], alpha=0.5, linewidths=0)
    plots.label(middle, titles.actions, y="action")
    if names:
        middle.set_yticks(range(len(names)), names)
        middle.set_ylim(-0.5, len(names) - 0.5)
    else:
        first = found.policy if not found.policy.is_floating_point() else found.policy.argmax(-1)
        middle.step(cell, actions[first.numpy()[lived]], where="mid", color=plots.COLOURS[1], linewidth=1.3)
    bottom.bar(cell, found.visits.numpy()[lived], color=plots.COLOURS[3], width=0.8)
    plots.label(bottom, titles.visits, "cell", "visits")
    for ax in (top, middle, bottom):
        ax.set_xlim(-0.5, world.layout.cols - 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return made


def _distinct(world: envs.World) -> Bool[np.ndarray, "S A"]:
    """Actions worth a dot: they do something, and not just what the one before does (a stake cut to what is held)."""
    mdp = world.mdp
    tables = np.stack([mdp.next_state.numpy(), mdp.prob.numpy(), mdp.reward.numpy(), mdp.terminated.numpy()])
    repeats = (tables[:, :, 1:] == tables[:, :, :-1]).all((0, 3))  # [S, A - 1]
    own = np.arange(mdp.states)[:, None, None]
    waits = (tables[0] == own).all(-1) & (tables[2] == 0).all(-1) & ~tables[3].any(-1).astype(bool)
    return ~waits & ~np.pad(repeats, ((0, 0), (1, 0)))


def _numbered(world: envs.World) -> tuple[Int64[np.ndarray, "A"], list[str]]:
    """Each action's number, of "stake 12" 12; or their order and names, where they are not all numbers."""
    last = [name.split()[-1] for name in world.action_names]
    if all(word.lstrip("-").isdigit() for word in last):
        return np.array([int(word) for word in last]), []
    return np.arange(world.actions), list(world.action_names)
