"""`qx solve`: the exact answer for a world, of the best policy or of a given one."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

import envs
from lab import console
from lab.run import write
from qx import answer, policies, solve_report, solve_text
from qx.answer import Answer
from qx.cells import has_map, in_map_order
from qx.jobs import device_of
from qx.methods import METHODS
from qx.solve_report import Titles
from qx.usage import Answering, UsageError, choose, parse
from qx.worlds import discount, overrides, table_world


@dataclass(frozen=True, kw_only=True)
class Solve(Answering):
    """Exact values, policy and return of a world: the best there is, or those of a given policy.

    It prints a map of values and actions; with --out DIR it draws them, and how often each cell is visited.
    Without --method, worlds of up to 10,000 states are solved by policy iteration, exact up to rounding, and larger
    ones by value iteration. The answer says how far from the truth a value may be, and how often some q(s, a) was
    computed on the way (backups; the linear solves of policy iteration come on top).
    """

    world: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="WORLD")]
    """A name from `qx worlds`, a TOML file of yours (docs/worlds.md has its language), or a Gymnasium id with known
    dynamics (FrozenLake-v1)."""
    gamma: float | None = None
    """Discount in [0, 1]; by default the world's own. Larger looks further ahead."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Change the world: KEY=VALUE, e.g. --set reward.forbidden=-10. Repeat for more."""
    policy: str | None = None
    """Instead of the best policy: `uniform`, the random one; a JSON file as this command writes it, or a list of
    actions or of rows of chances, one a cell; or epsilon:0.1, the best of those that act at random one time in ten."""
    horizon: int | None = None
    """Steps after which all ends: values are those with so many steps to go. Larger approaches the endless value."""
    method: str | None = None
    """How to find the best: value-iteration, policy-iteration, truncated (policy iteration with five sweeps of
    evaluation) or prioritised (sweeping; slow where every state leads to every other)."""


def solve(args: Sequence[str]) -> dict[str, Any]:
    """`qx solve WORLD`."""
    options = parse(Solve, args, "qx solve")
    device_of(options)
    _check(options)
    world = table_world(options.world, overrides(options.set))
    gamma = discount(options.gamma, world.discount)
    found = _ask(world, gamma, options)
    result = _result(world, gamma, options, found)
    console.out.print(solve_text.text(world, gamma, found, options.horizon), markup=False, soft_wrap=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write(options.out / "result.json", _json(result))
        picture = options.out / "report.png"
        if has_map(world):
            solve_report.save(picture, world, found, _titles(world, gamma, options, found))
        else:
            picture.unlink(missing_ok=True)  # of another world
        console.out.print(
            f"written to {options.out}{'' if has_map(world) else '; no map, so no picture'}", soft_wrap=True
        )
    return result


def _check(options: Solve) -> None:
    """Raises UsageError for a method that is none, or where there is none to choose."""
    if options.method is not None:
        choose("method", options.method, METHODS)
        for name, given in (("policy", options.policy), ("horizon", options.horizon)):
            if given is not None:
                raise UsageError(f"--method {options.method}: expected none with --{name}, which has only one way")


def _ask(world: envs.World, gamma: float, options: Solve) -> Answer:
    epsilon = 0.0 if options.policy is None else policies.chance_of(options.policy)
    if epsilon is not None:
        if options.horizon is None:
            return answer.best(world, gamma, epsilon, options.method)
        return answer.best_within(world, gamma, options.horizon, epsilon)
    policy = policies.read(str(options.policy), world)
    if options.horizon is None:
        return answer.given(world, policy, gamma)
    return answer.given_within(world, policy, gamma, options.horizon)


def _result(world: envs.World, gamma: float, options: Solve, found: Answer) -> dict[str, Any]:
    """What `--json` prints; what is no finite number becomes None."""
    values = [v if math.isfinite(v) else None for v in found.values.tolist()]
    if found.policy.is_floating_point():
        policy = found.policy.tolist()
    else:
        policy = [world.action_names[a] for a in found.policy.tolist()]
    result: dict[str, Any] = {
        "world": world.name,
        "gamma": gamma,
        "states": world.mdp.states,
        "optimal_return": _finite(found.optimal_return),
    }
    if options.policy is not None:
        result |= {
            "evaluated": options.policy,
            "return": _finite(found.optimal_return if found.returned is None else found.returned),
        }
        if epsilon := policies.chance_of(options.policy):
            result["epsilon"] = epsilon
    if options.horizon is not None:
        result["horizon"] = options.horizon
    result |= {"steps": _finite(found.steps), "method": found.method, "error_bound": found.error}
    result |= {"iterations": found.iterations, "backups": found.backups}
    result |= {"values": in_map_order(world, values), "policy": in_map_order(world, policy)}
    if has_map(world) and world.layout is not None and len(world.layout.modes) > 1:
        result["modes"] = [
            {"mode": name, "values": in_map_order(world, values, m), "policy": in_map_order(world, policy, m)}
            for m, name in enumerate(world.layout.modes)
        ]
    return result


def _titles(world: envs.World, gamma: float, options: Solve, found: Answer) -> Titles:
    """Whose values and actions, and which visits, in the words of a picture."""
    best = options.policy is None or options.policy.startswith("epsilon:")
    actions = "actions" + (", every one as good as the best" * answer.tied(world, found) if best else " of the policy")
    who = "optimal values" if options.policy is None else f"values of the policy {Path(options.policy).name}"
    if options.policy is not None and best:
        who = f"best values with {options.policy.replace(':', ' ')}"
    when = f"gamma {gamma:g}" if options.horizon is None else f"{options.horizon} steps to go"
    if options.horizon is not None:
        return Titles(f"{who}, {when}", actions, f"expected visits in {options.horizon} steps")
    counted = "" if found.visit_gamma == 1 else f", discounted by {found.visit_gamma:g}"
    return Titles(f"{who}, {when}", actions, f"expected visits an episode{counted}")


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None


def _json(result: dict[str, Any]) -> str:
    """One line for each key: a million values are written in a second, and a small world is still legible."""
    return "{\n" + ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in result.items()) + "\n}\n"
