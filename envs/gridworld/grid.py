"""A grid as described: what each kind of cell does, how the wind blows, what the cues are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from envs.world import Optimum

WALL = "wall"  # the one kind whose cells are no states


@dataclass(frozen=True)
class Kind:
    """What a cell does to whoever enters it or acts in it."""

    glyph: str
    like: str
    """How it looks in drawings and image planes, one of `envs.layout.LOOKS`."""
    terminal: bool = False
    """Entering it ends the episode."""
    solid: bool = False
    """It cannot be entered: who tries bumps into it. Unlike a wall's, its cells are states."""
    to: str = ""
    """Whoever enters is carried on at once to the one cell of this kind; "": stays."""
    exit: str = ""
    """Every action taken here leads to the one cell of this kind; "": the moves do as they say."""
    turn: str = "forward"
    """How moves taken here are turned, one of `envs.gridworld.TURNS`."""
    key: str = ""
    """Entering takes a key of this colour, once; then the cell is floor."""
    door: str = ""
    """Closed until it is entered with a key of this colour in hand, which is used up; then the cell is floor."""
    cue: bool = False
    """The cue of the episode is seen here."""

    @property
    def begins(self) -> bool:
        """Whether an episode can begin in such a cell."""
        return not (self.terminal or self.solid or self.to or self.key or self.door)


KINDS = {
    "floor": Kind(".", "floor"),
    WALL: Kind("#", "wall", solid=True),
    "start": Kind("S", "start", cue=True),
    "goal": Kind("G", "goal", terminal=True),
    "forbidden": Kind("x", "forbidden"),
    "cliff": Kind("C", "forbidden", to="start"),
    "hole": Kind("H", "hole", terminal=True),
}


@dataclass(frozen=True)
class Wind:
    """What is added to every move, by the column that is left."""

    up: tuple[int, ...]
    """Cells upwards, one number for each column; negative blows down."""
    varies: Mapping[int, float] = field(default_factory=lambda: {0: 1.0})
    """What is added to the wind where it blows at all, and with what probability."""


@dataclass(frozen=True)
class Cue:
    """Drawn at the start of an episode, and true until its end."""

    chance: float
    reward: Mapping[str, float] = field(default_factory=dict)
    """Rewards by kind of cell entered, in place of the grid's while this cue is true."""


@dataclass(frozen=True)
class Grid:
    """A grid as described; `envs.language.read` checks what it makes, `envs.gridworld.build` trusts it."""

    map: tuple[str, ...]
    """Rows of equal length, one glyph for each cell."""
    kinds: Mapping[str, Kind] = field(default_factory=lambda: dict(KINDS))
    actions: tuple[str, ...] = ("up", "right", "down", "left")
    """Names of `envs.gridworld.MOVES`."""
    discount: float = 0.99
    time_limit: int | None = None
    start: str | Mapping[str, float] = "map"
    """"map": any S with equal chance; "uniform": any cell where an episode can begin; or weights by kind of cell."""
    reward: Mapping[str, float] = field(default_factory=dict)
    """"step", "bump" and names of kinds entered."""
    leave: Mapping[str, float] = field(default_factory=dict)
    """Names of kinds acted in."""
    slip: Mapping[str, float] = field(default_factory=lambda: {"forward": 1.0})
    """Probabilities of `envs.gridworld.TURNS`."""
    wind: Wind | None = None
    alike: tuple[str, ...] = ()
    """Kinds whose cells all look the same."""
    cues: Mapping[str, Cue] = field(default_factory=dict)
    source: str = ""
    optimum: Optimum | None = None

    def cells(self, kind: str) -> int:
        """How many cells of that kind are on the map."""
        return sum(row.count(self.kinds[kind].glyph) for row in self.map)
