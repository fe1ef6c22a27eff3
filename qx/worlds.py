"""`qx worlds`: the worlds there are, each with its exact optimum; and what every command asks of a world."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import envs
from lab import console
from qx import answer
from qx.jobs import write_result
from qx.usage import Answering, UsageError, parse
from rl import dp

SHORT = {  # so that a source fits into a line
    r"(, p\. [\d-]+|:|;).*": "",  # what it is about, which its name says
    r", [^,:;]*\(\d{4}\)": "",  # the title of a book, and its year: the author says which
    r"Sutton & Barto,": "S&B",
    r"sec\. [\d.]+, (?=ex|fig)": "",
    r"\bexample ": "ex. ",
    r"\bexercise ": "exc. ",
}


@dataclass(frozen=True, kw_only=True)
class Worlds(Answering):
    """The worlds there are, with size, optimal return and where they come from."""


def worlds(args: Sequence[str]) -> dict[str, Any]:
    """`qx worlds`."""
    options = parse(Worlds, args, "qx worlds")
    found = [_described(name) for name in envs.names()]
    header = ["name", "states", "actions", "gamma", "optimum", "steps", "source"]
    rows = [
        [
            w["name"],
            f"{w['states']}",
            f"{w['actions']}",
            f"{w['gamma']:g}",
            "-" if w["optimal_return"] is None else f"{w['optimal_return']:.4f}",
            "-" if w["steps"] is None else f"{w['steps']:.4g}",
        ]
        for w in found
    ]
    if console.out.width < console.WIDE:  # so that the source has room
        header, rows = [*header[:-2], header[-1]], [row[:-1] for row in rows]
    taken = sum(2 + max(map(len, column)) for column in zip(header, *rows, strict=False))
    room = max(16, console.out.width - taken)  # so that each world is one line
    rows = [[*row, shorten(_short(w["source"]), room, placeholder=" …")] for row, w in zip(rows, found, strict=True)]
    console.table("worlds, each with its exact optimum and the steps it takes", header, rows)
    console.out.print(
        "[dim]S&B: Sutton & Barto, Reinforcement Learning (2018). A TOML file of your own and Gymnasium ids "
        "(FrozenLake-v1, CartPole-v1) work wherever a name does."
    )
    write_result(options, {"worlds": found})
    return {"worlds": found}


def _short(source: str) -> str:
    for long, short in SHORT.items():
        source = re.sub(long, short, source)
    return source


def _described(name: str) -> dict[str, Any]:
    """One world of the table, solved."""
    world = table_world(name, {})
    known: dict[str, Any] = {"optimal_return": None, "steps": None}
    try:
        found = answer.best(world, world.discount)
        known = {"optimal_return": found.optimal_return, "steps": found.steps if math.isfinite(found.steps) else None}
    except dp.DPError as error:  # a world whose best is infinite has none to show
        known["why"] = str(error)
    return {
        "name": name,
        "states": world.mdp.states,
        "actions": world.mdp.actions,
        "gamma": world.discount,
        **known,
        "source": world.source,
    }


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
