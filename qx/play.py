"""`qx play`: walk through a world by keyboard with the exact optimum at one's elbow, or watch an agent."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from jaxtyping import Shaped
from torch import Tensor

import envs
from envs import picture
from envs.layout import Layout
from lab import console
from lab.run import plain
from qx import keymap, record
from qx.artifacts import learned
from qx.jobs import device_of, write_result
from qx.keyboard import keyboard
from qx.usage import Answering, UsageError, parse
from qx.walk import Companion, Walk
from qx.worlds import discount, overrides, table_world
from rl.recipe import shape_of
from rl.saved import Saved

HINTS, AGENT, RESTART, QUIT = "?h", "g", "r", "q"
SAID = 4  # best actions that a hint names
BELOW = 10  # lines of the terminal that are not the map's


@dataclass(frozen=True, kw_only=True)
class Play(Answering):
    """Walk through a world by keyboard: arrows or WASD, ? for the best action, r for a new episode, q to quit.

    With --run and --gif an agent plays, and its episodes become a picture; a world without tables (CartPole-v1) is
    played by its agent only.
    """

    world: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORLD")]
    """A name from `qx worlds`, a TOML file, or a Gymnasium id."""
    run: Path | None = None
    """A run of `qx train` on this world, or a folder with a saved agent: g lets its best replica take a step."""
    gif: Path | None = None
    """Record episodes of --run's agent to this file, and ask for no key."""
    episodes: int = 3
    """Episodes that the agent plays, where it plays alone. More take longer to look at."""
    frames: int = 200
    """Pictures in --gif, shared by the episodes: of a longer one its first and its last. More make a larger file."""
    observation: str | None = None
    """Show what an agent sees as well: index, coordinates, window-3, ... (see `qx train`)."""
    gamma: float | None = None
    """Discount in [0, 1]; by default the world's own."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change the world: KEY=VALUE, e.g. --set reward.forbidden=-10. Repeat for more."""


def play(args: Sequence[str]) -> dict[str, Any]:
    """`qx play WORLD`."""
    options = parse(Play, args, "qx play")
    device_of(options)
    given = envs.load(options.world, overrides(options.set))
    if options.gif is not None or (options.run is not None and not isinstance(given, envs.World)):
        return _alone(options, given)
    world = table_world(options.world, overrides(options.set))
    seen = None if options.observation is None else world.observe(options.observation)
    walk = Walk(world, options.seed, discount(options.gamma, world.discount))
    agent = None if options.run is None else _agent(options.run, world, options)
    sight = None if agent is None else world.observe(agent.config.observation)
    companion = None if agent is None else Companion(agent, options.seed)
    with _screen() as show, keyboard() as pressed:
        view = View(walk, companion, sight, seen)
        show(view.frame(), "")
        with suppress(KeyboardInterrupt):  # as good as q
            for key in keymap.actions(pressed, world.action_names):
                if key == QUIT:
                    break
                said = view.press(key)
                show(view.frame(), said)
    result = plain(walk.result())
    write_result(options, result)
    console.out.print(walk.summary(), markup=False, soft_wrap=True)
    return dict(result)


class View:
    """A walk as it is seen, and what a key does to it."""

    def __init__(
        self,
        walk: Walk,
        companion: Companion | None,
        sight: Shaped[Tensor, "S ..."] | None,
        seen: Shaped[Tensor, "S ..."] | None,
    ) -> None:
        self.walk, self.companion, self.sight, self.seen = walk, companion, sight, seen
        self.colour = sys.stdout.isatty()
        self._look()

    def _look(self) -> None:
        """Let the agent see where the walk is, once for each step."""
        if self.companion is not None and self.sight is not None:
            self.advice = self.companion.look(self.sight[self.walk.state])

    def press(self, key: str | int) -> str:
        """Do what a key asks for; returns what there is to say about it."""
        walk, names = self.walk, self.walk.world.action_names
        if key == RESTART:
            walk.restart()
            if self.companion is not None:
                self.companion.begin()
            self._look()
            return "a new episode"
        if walk.ended and (isinstance(key, int) or key in (AGENT, *HINTS)):
            return "the episode is over: r begins another, q quits"
        if key == AGENT:
            if self.companion is None:
                return "there is no agent here: give one by --run"
            key = self.advice
        if isinstance(key, int):
            walk.act(key)
            self._look()
            after = "" if not walk.ended else ", cut by the time limit" if walk.truncated else ", the end"
            return f"{names[key]}: reward {walk.reward:g}{after}"
        if key in HINTS:
            if not walk.best:
                return f"no hint: {walk.trouble}"
            if len(walk.best) > SAID:
                return f"best here: {walk.best[0]}, and {len(walk.best) - 1} others as good"
            return "best here: " + " or ".join(walk.best)
        return ""

    def frame(self) -> str:
        """The map, the numbers and the keys."""
        walk = self.walk
        ahead = "" if walk.ahead is None else f"   best from here {walk.ahead:.6g}"
        lines = [
            f"{walk.world.name}   episode {walk.episodes}   gamma {walk.gamma:g}",
            self._map(),
            f"state {walk.state}   steps {walk.steps}   last reward {walk.reward:g}",
            f"return {walk.returned:.6g}{', discounted' if walk.gamma < 1 else ''}{ahead}",
        ]
        if self.seen is not None:
            lines.append(f"observation {_words(self.seen[walk.state])}")
        agent = "   g the agent's step" if self.companion is not None else ""
        lines.append(keymap.legend(walk.world.action_names))
        lines.append(f"? hint{agent}   r restart   q quit")
        return "\n".join(lines)

    def _map(self) -> str:
        world, state = self.walk.world, self.walk.state
        if world.parts:  # of a mixture, the world that one is in
            part, state = divmod(state, world.mdp.states // len(world.parts))
            world = world.parts[part]
        if world.layout is None:
            return f"state {state} of {world.mdp.states} (this world has no map)"
        drawn = picture.terminal if self.colour else picture.text
        return drawn(dataclasses.replace(world, layout=_around(world.layout, state)), state)


def _around(layout: Layout, state: int) -> Layout:
    """As much of the map around the agent as the terminal shows."""
    room = shutil.get_terminal_size()
    row, col = layout.cell[state].tolist()
    rows, cols = max(3, room.lines - BELOW), max(3, room.columns // 2)
    top = min(max(0, row - rows // 2), max(0, layout.rows - rows))
    left = min(max(0, col - cols // 2), max(0, layout.cols - cols))
    if layout.rows <= rows and layout.cols <= cols:
        return layout
    return dataclasses.replace(
        layout,
        glyphs=tuple(line[left : left + cols] for line in layout.glyphs[top : top + rows]),
        look=layout.look[:, top : top + rows, left : left + cols],
        cell=layout.cell - torch.tensor([top, left]),
        wind=layout.wind[left : left + cols],
    )


def _words(seen: Shaped[Tensor, "*shape"]) -> str:
    """An observation in text: a number, a list of them, or the size of a picture and how bright it is."""
    if seen.ndim == 0:
        return str(int(seen))
    if seen.ndim == 1:
        return " ".join(f"{v:g}" for v in seen.tolist()) if len(seen) <= 12 else f"1 at {int(seen.argmax())}"
    if seen.dtype == torch.uint8:
        return f"{list(seen.shape)} pixels"
    top = torch.cat([torch.full_like(seen[:1], 0.5), seen]).argmax(0)  # [H, W], 0 where no plane is set
    return "(by plane)\n" + "\n".join("".join(".123456789"[min(i, 9)] for i in row) for row in top.tolist())


@contextmanager
def _screen() -> Iterator[Callable[[str, str], None]]:
    """Where frames go: over each other on a page of their own in a terminal, which is then as before; else in a row."""
    if not (sys.stdout.isatty() and sys.stdin.isatty()):
        yield lambda frame, said: print(f"{said}\n{frame}" if said else frame, end="\n\n")
        return

    def show(frame: str, said: str) -> None:
        sys.stdout.write(f"\x1b[H\x1b[J{frame}\n\n{said}\n")
        sys.stdout.flush()

    try:
        sys.stdout.write("\x1b[?1049h\x1b[?25l")  # another page, no cursor
        yield show
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


def _alone(options: Play, world: envs.World | envs.GymWorld) -> dict[str, Any]:
    """Episodes that the agent plays by itself."""
    if options.run is None:
        raise UsageError(f"--gif {options.gif}: records an agent, expected --run with a run of `qx train` as well")
    saved = _agent(options.run, world, options)
    if options.gif is not None:
        record.check(options.gif, world)
    each = 0 if options.gif is None else max(1, options.frames // options.episodes)
    played = record.episodes(saved, world, seed=options.seed, count=options.episodes, frames=each)
    if options.gif is not None:
        record.write(options.gif, played, world)
    result = plain(
        {
            "world": world.name,
            "agent": saved.name,
            "returns": [one.returned for one in played],
            "steps": [one.steps for one in played],
            "ended": [one.ended for one in played],
            "gif": None if options.gif is None else str(options.gif),
        }
    )
    write_result(options, result)
    for number, one in enumerate(played, 1):
        how = "ended" if one.ended else "was cut"
        console.out.print(f"episode {number} {how} after {one.steps} steps with return {one.returned:.6g}")
    if options.gif is not None:
        console.out.print(f"recorded in {options.gif}", markup=False, soft_wrap=True)
        if said := record.cut(played, each):
            console.out.print(said, markup=False, soft_wrap=True)
    return dict(result)


def _agent(path: Path, world: envs.World | envs.GymWorld, options: Play) -> Saved:
    """The agent of a run or of a folder. Raises UsageError for one of another world."""
    saved = learned(path, options)
    same = saved.world.name == world.name and saved.world.actions == world.actions
    if not same or shape_of(saved.config, saved.world) != shape_of(saved.config, world):
        raise UsageError(f"--run {path}: its world is {saved.world.name}, expected {world.name} with the same --set")
    return saved
