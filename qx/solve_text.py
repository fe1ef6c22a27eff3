"""What `qx solve` prints: a map of values and arrows, as wide as the terminal allows, and a few lines below it."""

from __future__ import annotations

import math

import envs
from lab import console
from qx.answer import Answer
from qx.cells import cell_states, has_map

ARROWS = {
    "up": "↑",
    "right": "→",
    "down": "↓",
    "left": "←",
    "stay": "○",
    "up-right": "↗",
    "down-right": "↘",
    "down-left": "↙",
    "up-left": "↖",
}
MODES = 4  # shown; more are told of
ROUNDING = 1e-10  # an error bound below it says no more than that numbers have 16 digits
ROWS = 60  # of a map that is printed


def text(world: envs.World, gamma: float, found: Answer) -> str:
    """The whole answer."""
    lines = [f"{world.name}  {world.mdp.states} states, {world.mdp.actions} actions, gamma {gamma:g}"]
    if has_map(world):
        lines += _maps(world, found)
    if found.returned is not None:
        lines.append(f"return {_number(found.returned)}")
    lines.append(found.trouble or f"optimal return {_number(found.optimal_return)}")
    length = f"{found.steps:.6g}" if math.isfinite(found.steps) else "infinite: it may go on for ever"
    lines.append(f"expected length of an episode {length}")
    bound = f"; no value is wrong by more than {found.error:.1g}" if (found.error or 0) > ROUNDING else ""
    lines.append(f"by {found.method}{bound}")
    endless = int((~found.values.isfinite()).sum())
    if endless:
        lines.append(
            f"{endless} states have no finite value at gamma {gamma:g}: rewards recur for ever there (null in JSON)"
        )
    return "\n".join(lines)


def _maps(world: envs.World, found: Answer) -> list[str]:
    """A map for each mode, in the most digits that fit; or one line on where the numbers are, when no map fits."""
    assert world.layout is not None
    M, rows, cols = (states := cell_states(world)).shape
    wide = console.out.width
    if rows > ROWS or cols > (2 * wide if rows == 1 else wide // 2):
        return [f"a map of {rows} x {cols} cells is too large to print: --out DIR draws it, --json gives every value"]
    numbers = found.values[world.mdp.lived() & found.values.isfinite()]
    largest, whole = max(numbers.abs().tolist(), default=0.0), bool((numbers == numbers.round()).all())
    for digits in (2, *[1] * (largest >= 1), *[0] * (largest >= 10 or whole), None):
        words = _words(world, found, digits)
        width = max(map(len, words)) + 1
        if width * cols <= wide or rows == 1:
            break
    words.append("#" * max(1, width - 2))  # of no state: a wall
    if width * cols > wide:  # a long walk, line after line
        across = (wide - 6) // width
        row = [words[s].rjust(width) for s in states[0, 0]]
        return [f"{i:>5} " + "".join(row[i : i + across]) for i in range(0, cols, across)]
    lines = []
    for name, mode in zip(world.layout.modes[:MODES], states, strict=False):
        lines += [f"-- {name or 'at first'}"] * (M > 1)
        lines += ["".join(words[s].rjust(width) for s in row) for row in mode]
    return lines + [f"-- and {M - MODES} more modes: --json gives every value"] * (M > MODES)


def _words(world: envs.World, found: Answer, digits: int | None) -> list[str]:
    """Value and action of each state; where nothing is decided, the glyph of its cell."""
    assert world.layout is not None
    glyphs, lived = world.layout.glyphs, world.mdp.lived().tolist()
    action = found.policy.argmax(-1) if found.policy.is_floating_point() else found.policy
    certain = (found.arrows > 1 - 1e-9).any(-1).tolist() if found.policy.is_floating_point() else lived
    hands = [sign(name) for name in world.action_names]
    words = []
    for s, (cell, value, a) in enumerate(
        zip(world.layout.cell.tolist(), found.values.tolist(), action.tolist(), strict=True)
    ):
        if not lived[s]:
            words.append(glyphs[cell[0]][cell[1]])
            continue
        hand = hands[a] if certain[s] else ""
        words.append(hand if digits is None else f"{value:.{digits}f}{hand}")
    return words


def _number(value: float | None) -> str:
    """Six decimals, or six digits where those would all be 0."""
    return "-" if value is None else f"{value:.6g}" if 0 < abs(value) < 1e-3 else f"{value:.6f}"


def sign(name: str) -> str:
    """The arrow of a move, of "left 2" too; of "stake 12" the 12, after a space."""
    words = name.split()
    return ARROWS.get(name) or ARROWS.get(words[0]) or " " + words[-1]
