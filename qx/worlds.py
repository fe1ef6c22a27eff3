"""`qx worlds` and `qx solve`: the worlds there are, and their exact answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Annotated, Any

import tyro

import envs
from envs import render
from lab import console, plots
from lab.run import plain
from qx.jobs import device_of, write_result
from qx.usage import Common, UsageError, parse
from rl import dp

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


@dataclass(frozen=True, kw_only=True)
class Worlds(Common):
    """The worlds there are, with size, optimal return and where they come from."""


@dataclass(frozen=True, kw_only=True)
class Solve(Common):
    """Exact values, policy and optimal return of a world, by policy iteration."""

    world: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORLD")]
    """A name from `qx worlds`, a TOML file, or a Gymnasium id with known dynamics (FrozenLake-v1)."""
    gamma: float | None = None
    """Discount in [0, 1]; by default the world's own. Larger looks further ahead."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change the world: KEY=VALUE, e.g. --set reward.forbidden=-10. Repeat for more."""


def worlds(args: Sequence[str]) -> dict[str, Any]:
    """`qx worlds`."""
    options = parse(Worlds, args, "qx worlds")
    found: list[dict[str, Any]] = []
    for name in envs.names():
        world = table_world(name, {})
        solution = dp.policy_iteration(world.mdp, world.discount)
        found.append(
            {
                "name": name,
                "states": world.mdp.states,
                "actions": world.mdp.actions,
                "gamma": world.discount,
                "optimal_return": float(world.mdp.start @ solution.values),
                "source": world.source,
            }
        )
    room = max(24, console.out.width - 56)  # so that each world is one line
    rows = [
        [
            w["name"],
            f"{w['states']}",
            f"{w['actions']}",
            f"{w['gamma']:g}",
            f"{w['optimal_return']:.4f}",
            shorten(w["source"], room, placeholder=" …"),
        ]
        for w in found
    ]
    console.table("worlds", ["name", "states", "actions", "gamma", "optimal return", "source"], rows)
    console.out.print(
        "[dim]a TOML file of your own and Gymnasium ids (FrozenLake-v1, CartPole-v1) work wherever a name does"
    )
    write_result(options, {"worlds": found})
    return {"worlds": found}


def solve(args: Sequence[str]) -> dict[str, Any]:
    """`qx solve WORLD`."""
    options = parse(Solve, args, "qx solve")
    device_of(options)
    world = table_world(options.world, overrides(options.set))
    gamma = discount(options.gamma, world.discount)
    solution = dp.policy_iteration(world.mdp, gamma)
    optimal = float(world.mdp.start @ solution.values)
    result: dict[str, Any] = {
        "world": world.name,
        "gamma": gamma,
        "optimal_return": optimal,
        "values": in_map_order(world, solution.values.tolist()),
        "policy": in_map_order(world, [world.action_names[a] for a in solution.policy.tolist()]),
    }
    console.out.print(f"[bold]{world.name}[/]  {world.mdp.states} states, {world.mdp.actions} actions, gamma {gamma:g}")
    if world.layout is not None:
        console.out.print(_map(world, result["values"], result["policy"]), markup=False, soft_wrap=True)
    console.out.print(f"optimal return {optimal:.6f}")
    if options.out is not None:
        write_result(options, result)
        if world.layout is not None:
            made, (ax,) = plots.figure()
            title = f"{world.name}: optimal values, gamma {gamma:g}"
            render.draw(world, values=solution.values, policy=solution.ties(), title=title, ax=ax)
            plots.save(made, options.out / "report.png")
        console.out.print(f"written to {options.out}", soft_wrap=True)
    return plain(result)


def _map(world: envs.World, values: list[Any], policy: list[Any]) -> str:
    """Value and arrow of each cell, walls as blocks: a line a row."""
    assert world.layout is not None
    glyphs = "".join(world.layout.glyphs)  # of a cell where nothing is decided: a goal, a hole, a cliff
    lived = in_map_order(world, world.mdp.lived().tolist())
    cells = [
        "   ####  " if value is None else f"{value:8.2f}{ARROWS.get(action, ' ')}" if alive else f"{glyph:>8} "
        for value, action, alive, glyph in zip(values, policy, lived, glyphs, strict=True)
    ]
    columns = world.layout.cols
    return "\n".join("".join(cells[i : i + columns]) for i in range(0, len(cells), columns))


def table_world(name: str, changes: dict[str, str]) -> envs.World:
    """The world of that name, with tables. Raises UsageError for a Gymnasium world without known dynamics."""
    world = envs.load(name, changes)
    if not isinstance(world, envs.World):
        raise UsageError(
            f"{name}: its dynamics are not known, so there is no exact answer; train an agent on it instead"
        )
    return world


def overrides(words: Sequence[str]) -> dict[str, str]:
    """`["a.b=1"]` as `{"a.b": "1"}`. Raises UsageError for a word without a name before the `=`."""
    pairs = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--set {word}: expected KEY=VALUE, for example reward.forbidden=-10")
        pairs[key.strip()] = value.strip()
    return pairs


def discount(given: float | None, own: float) -> float:
    """The discount to use. Raises UsageError outside [0, 1]."""
    gamma = own if given is None else given
    if not 0 <= gamma <= 1:
        raise UsageError(f"--gamma {gamma:g}: expected a number from 0 to 1")
    return gamma


def in_map_order(world: envs.World, by_state: list[Any]) -> list[Any]:
    """One entry a cell, row by row, None in walls; for a world without a map, one a state."""
    if world.layout is None:
        return by_state
    return [None if s < 0 else by_state[s] for s in world.layout.state.ravel().tolist()]
