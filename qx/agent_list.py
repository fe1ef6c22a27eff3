"""`qx agents`: the agents that `qx train` takes, family by family, with a line about each."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab import console
from qx.usage import Answering, parse
from rl.agents import FAMILIES
from rl.recipe import Recipe
from rl.sb3_learners import LEARNERS

THEIRS = "stable-baselines3's, on our backbones"


@dataclass(frozen=True, kw_only=True)
class Agents(Answering):
    """The agents there are, family by family; `qx train AGENT WORLD --help` says what each can be told."""


def agents(args: Sequence[str]) -> list[dict[str, Any]]:
    """`qx agents`."""
    parse(Agents, args, "qx agents")
    found = []
    for family, recipes in families():
        console.out.print(f"\n[bold]{family}[/]")
        for name, recipe in recipes.items():
            about = _about(recipe)
            console.out.print(f"  {name:<26}[dim]{console.escape(about)}[/]", soft_wrap=True)
            found.append({"name": name, "family": family, "about": about})
    return found


def families() -> Iterator[tuple[str, dict[str, Recipe]]]:
    """What each family is called, and its agents."""
    for family, module in FAMILIES.items():
        yield family, module.AGENTS
    yield THEIRS, LEARNERS


def names() -> str:
    """All names, a paragraph a family."""
    return "\n".join(
        f"    {family}:\n" + textwrap.fill(", ".join(recipes), 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
        for family, recipes in families()
    )


def _about(recipe: Recipe) -> str:
    """The first sentence of what its config says of itself."""
    return " ".join((recipe.config.__doc__ or "").split("\n\n")[0].split()).split("; ")[0].rstrip(".")
