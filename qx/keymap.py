"""Which key takes which action of a world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MOVE_KEYS = {
    "up": ("up", "w"),
    "left": ("left", "a"),
    "down": ("down", "s"),
    "right": ("right", "d"),
    "up-left": ("y",),
    "up-right": ("u",),
    "down-left": ("b",),
    "down-right": ("n",),
    "stay": (" ", "."),
}
COMPASS = {"north": "up", "west": "left", "south": "down", "east": "right"}
SHOWN = {"up": "↑", "left": "←", "down": "↓", "right": "→", " ": "space"}
DIGITS = 10  # actions that have a digit each; of more, a number is typed


def keys(names: Sequence[str]) -> dict[str, int]:
    """The action of each key: moves by arrows and letters, and up to ten actions by their number."""
    found = {str(a): a for a in range(len(names))} if len(names) <= DIGITS else {}
    for a, name in enumerate(names):
        for key in MOVE_KEYS.get(COMPASS.get(name, name), ()):
            found.setdefault(key, a)
    return found


def typed(names: Sequence[str], word: str) -> int | None:
    """The action that a typed number means: that whose name ends with it ("stake 12"), else that of this number."""
    last = [name.split()[-1].removeprefix("+") for name in names]
    if word in last:
        return last.index(word)
    return int(word) if word.isdigit() and int(word) < len(names) else None


def actions(pressed: Iterator[str], names: Sequence[str]) -> Iterator[str | int]:
    """Every key that is pressed: as the action it takes, or as itself."""
    by_key, word = keys(names), ""
    for key in pressed:
        if key in by_key:
            yield by_key[key]
        elif len(names) > DIGITS and (key.isdigit() or (key == "-" and not word)):
            word += key
        elif key in "\r\n":
            action, word = typed(names, word), ""
            if action is not None:
                yield action
        else:
            word = ""
            yield key


def legend(names: Sequence[str]) -> str:
    """The keys in words: moves together, others each with its name."""
    by_key = keys(names)
    moves = [name for name in names if COMPASS.get(name, name) in MOVE_KEYS]
    straight = [m for m in moves if MOVE_KEYS[COMPASS.get(m, m)][0] in ("up", "left", "down", "right")]
    parts = ["arrows or wasd" if len(straight) == 4 else "arrows"] if straight else []
    parts += [_named(key, names[a]) for key, a in by_key.items() if names[a] in moves and key in "yubn "]
    others = [a for a, name in enumerate(names) if name not in moves]
    if others and len(names) <= DIGITS:
        parts += [f"{a} {names[a]}" for a in others]
    elif others:
        parts.append(f"a number and Enter: {names[others[0]]} to {names[others[-1]]}")
    return "   ".join(parts)


def _named(key: str, name: str) -> str:
    return f"{SHOWN.get(key, key)} {name}"
