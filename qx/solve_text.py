"""What `qx solve` prints: a map of values and arrows, as wide as the terminal allows, and a few lines below it."""

from __future__ import annotations

import math

import envs
from lab import console
from qx.answer import Answer, tied
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


def text(world: envs.World, gamma: float, found: Answer, horizon: int | None = None) -> str:
    """The whole answer."""
    lines = [f"{world.name}  {world.mdp.states} states, {world.mdp.actions} actions, gamma {gamma:g}"]
    if has_map(world):
        lines += _maps(world, found)
    elif world.parts:
        own = world.mdp.states // len(world.parts)
        lines.append(f"{len(world.parts)} worlds of {own} states: --json gives every value")
    else:
        lines.append("no map: --json gives every value")
    if found.returned is not None:
        lines.append(f"return {_number(world, found.returned)}")
    lines.append(found.trouble or f"optimal return {_number(world, found.optimal_return)}")
    if not world.mdp.reward[world.mdp.prob > 0].any():
        lines.append("every reward is 0: give [reward] goal = 1, for example")
    if world.time_limit is not None and horizon is None:
        lines.append(f"time limit {world.time_limit} not counted; --horizon {world.time_limit} counts it")
    length = f"{found.steps:.6g}" if math.isfinite(found.steps) else "infinite: it may go on for ever"
    lines.append(f"expected length of an episode {length}")
    bound = f"; no value is wrong by more than {found.error:.1g}" if (found.error or 0) > ROUNDING else ""
    lines.append(f"by {found.method}{bound}")
    endless = int((~found.values.isfinite()).sum())
    if endless:
        lines.append(
            f"{endless} states have no finite value at gamma {gamma:g}: rewards recur for ever there (null in JSON)"
        )
    if found.values.isnan().any():
        lines.append("where they neither gain nor lose for certain, the sum is no number: -")
    return "\n".join(lines)


def _maps(world: envs.World, found: Answer) -> list[str]:
    """A map for each mode, in the most digits that fit; or one line on where the numbers are, when no map fits."""
    assert world.layout is not None
    M, rows, cols = cell_states(world).shape
    wide = console.out.width
    large = f"a map of {rows} x {cols} cells is too large to print here: --out DIR draws it, --json gives every value"
    if rows > ROWS or cols > (2 * wide if rows == 1 else wide // 2):
        return [large]
    numbers = found.values[world.mdp.lived() & found.values.isfinite()]
    largest, whole = max(numbers.abs().tolist(), default=0.0), bool((numbers == numbers.round()).all())
    for digits in (2, *[1] * (largest >= 1), *[0] * (largest >= 10 or whole), None):
        words = _words(world, found, digits)
        width = max(map(len, words)) + 1
        if width * cols <= wide or rows == 1:
            break
    else:
        return [large]
    maps = [_rows(world, words, mode, width) for mode in range(min(M, MODES))]
    lines = ["no room for values here: --json gives every one"] * (digits is None)
    if width * cols > wide:  # a long walk, line after line
        across = (wide - 6) // width
        lines += [f"{i:>5} " + "".join(maps[0][0][i : i + across]) for i in range(0, cols, across)]
        return lines + _legend(world, words, found)
    for name, shown in zip(world.layout.modes, maps, strict=False):
        lines += [f"-- {name or 'at first'}"] * (M > 1)
        lines += map("".join, shown)
    lines += [f"-- and {M - MODES} more modes: --json gives every value"] * (M > MODES)
    if any(world.layout.wind):
        lines.append("".join(str(up).rjust(width) for up in world.layout.wind))
        lines.append("below the map the wind, cells upwards")
    return lines + _legend(world, words, found)


def _rows(world: envs.World, words: list[str], mode: int, width: int) -> list[list[str]]:
    """The map of a mode, cell by cell: a wall as # signs, a door that is closed as its glyph."""
    assert world.layout is not None
    closed, wall = world.layout.shows("door", mode).tolist(), "#" * max(1, width - 2)
    return [
        [
            (words[s] if s >= 0 else world.layout.glyphs[r][c] if closed[r][c] else wall).rjust(width)
            for c, s in enumerate(row)
        ]
        for r, row in enumerate(cell_states(world)[mode].tolist())
    ]


def _legend(world: envs.World, words: list[str], found: Answer) -> list[str]:
    """What a map does not say by itself."""
    lines = ["`.` is never entered"] * ("." in words)
    if tied(world, found):
        lines.append("one of the best actions each; --out DIR draws all")
    return lines


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
        words.append(hand.strip() if digits is None else _rounded(value, digits) + hand)
    return words


def _rounded(value: float, digits: int) -> str:
    """So many decimals, 0 without a sign."""
    word = f"{value:.{digits}f}"
    return "-" if math.isnan(value) else word.removeprefix("-") if float(word) == 0 else word


def _number(world: envs.World, value: float | None) -> str:
    """Six decimals, or six digits where those would all be 0; what is left of gains and losses by rounding is 0."""
    if value is None or math.isnan(value):
        return "-"
    least, most = world.mdp.reward.aminmax()
    if least < 0 < most and abs(value) < ROUNDING * max(-least, most):
        value = 0.0
    return f"{value:.6g}" if 0 < abs(value) < 1e-3 else _rounded(value, 6)


def sign(name: str) -> str:
    """The arrow of a move, of "left 2" too; of "stake 12" the 12, after a space."""
    words = name.split()
    return ARROWS.get(name) or ARROWS.get(words[0]) or " " + words[-1]
