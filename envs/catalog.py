"""Every world by name: our own, a file of yours, or anything Gymnasium knows.

load("zhao-5x5")                      a named world of this house
load("maze", {"maze.size": 50})       ... made with other numbers than its file says
load("my/maze.toml")                  a file in the grid language
load("FrozenLake-v1")                 Gymnasium's, lifted into a table because it shows its dynamics as `P`
load("CartPole-v1")                   Gymnasium's, stepped as it is
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from envs import atari, language
from envs.gymworlds import GymWorld, bare, make, obs_shape
from envs.language.document import WorldError, near, value_of
from envs.layout import LOOKS, Layout
from envs.lift import lift, shows_table
from envs.mdp import MDPError, TabularMDP
from envs.world import World

FOLDER = Path(__file__).parent / "worlds"
NAMESPACE = "quincunx"  # of our worlds in Gymnasium's registry
DISCOUNT = 0.99  # of a Gymnasium world, which names none, but for those that count steps to a goal:
DISCOUNTS = {"Taxi": 1.0, "CliffWalking": 1.0, "CliffWalkingSlippery": 1.0}

EXTRAS = {"box2d": "box2d", "pygame": "render"}
"""Which of our extras brings what Gymnasium finds missing, by a word of its message."""

HARMLESS = ("source", "time_limit")  # overrides that leave the optimum what it is

LIFTED_ACTIONS = {  # what Gymnasium's documentation calls the actions of its toy-text worlds
    "FrozenLakeEnv": ("left", "down", "right", "up"),
    "CliffWalkingEnv": ("up", "right", "down", "left"),
    "TaxiEnv": ("south", "north", "east", "west", "pick up", "drop off"),
}
LIFTED_LOOKS = {"S": "start", "G": "goal", "H": "hole", "C": "forbidden"}  # by the letter in `desc`; all else is floor


def names() -> tuple[str, ...]:
    """The worlds of this house, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load(name: str | Path, overrides: Mapping[str, Any] | None = None) -> World | GymWorld:
    """The world of that name, file or Gymnasium id.

    Args:
        name: one of `names()`, a path that ends in .toml, or a Gymnasium id.
        overrides: values by dotted key, `{"reward.forbidden": "-10"}`. What the file knows of the best policy does
            not hold for a world that was changed, and is left out. For a Gymnasium id: `discount`, `time_limit` and
            keyword arguments of the environment, `{"is_slippery": "false"}`.

    Raises:
        WorldError: one line; for an unknown name with the nearest known one.
    """
    name = str(name)
    if name in names():
        return read_file(FOLDER / f"{name}.toml", overrides)
    if name.endswith(".toml"):
        return read_file(Path(name), overrides)
    return _from_gymnasium(name, overrides or {})


def read_file(path: Path, overrides: Mapping[str, Any] | None = None) -> World:
    """The world that a file describes, named after it. Raises WorldError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WorldError(f"{path}: cannot be read: {error.strerror}, expected a world in TOML") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise WorldError(f"{path}:{line}:1: byte {error.start} is no UTF-8, expected text") from None
    world = language.world(text, str(path), path.stem, overrides)
    untouched = all(key in HARMLESS or key.split(".")[0] == "optimum" for key in overrides or {})
    return world if untouched else replace(world, optimum=None)


def _from_gymnasium(name: str, overrides: Mapping[str, Any]) -> World | GymWorld:
    try:
        if name.startswith(atari.NAMESPACE):
            atari.register()
    except ImportError as error:
        raise WorldError(f"{name}: {error}") from error
    try:
        spec = gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError, ValueError) as error:
        begun = [known for known in names() if name and known.startswith(name.lower())]
        hint = f"; did you mean {begun[0]!r}?" if begun else near(name, [*names(), *gymnasium.registry])
        known = "`qx worlds` lists the names there are; a .toml file and a Gymnasium id will do as well"
        raise WorldError(f"world {name!r} is unknown{hint or ';'} {known}") from error
    if spec.namespace == NAMESPACE:
        return load(spec.kwargs["world"], overrides)
    given = {key: value_of(value) for key, value in overrides.items()}
    discount = given.pop("discount", DISCOUNTS.get(spec.name, DISCOUNT))
    longest = atari.LONGEST if spec.namespace == "ALE" else spec.max_episode_steps
    time_limit = given.pop("time_limit", longest or "none")
    if isinstance(discount, bool) or not isinstance(discount, int | float) or not 0 <= discount <= 1:
        raise WorldError(f"{name}: override discount={discount}: expected a number from 0 to 1")
    whole = isinstance(time_limit, int) and not isinstance(time_limit, bool)
    if time_limit != "none" and not (whole and 1 <= time_limit <= language.LONGEST):
        expected = f'expected a number of steps, 1 to {language.LONGEST}, or "none"'
        raise WorldError(f"{name}: override time_limit={time_limit}: {expected}")
    try:
        env = make(name, given)
    except gymnasium.error.DependencyNotInstalled as error:
        missing = next((extra for word, extra in EXTRAS.items() if word in str(error).lower()), None)
        way_out = str(error) if missing is None else f"something is missing: pip install 'quincunx[{missing}]'"
        raise WorldError(f"{name}: {' '.join(way_out.split())}") from error
    except Exception as error:  # whatever a third party's constructor raises
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise WorldError(f"{name}: Gymnasium cannot make it with {given}: {message}") from error
    return _wrapped(name, env, float(discount), None if time_limit == "none" else time_limit, given)


def _wrapped(
    name: str, env: gymnasium.Env[Any, Any], discount: float, time_limit: int | None, arguments: dict[str, Any]
) -> World | GymWorld:
    source, inner = f"Gymnasium, {name}", bare(env)
    if shows_table(env) and inner is env.unwrapped:
        try:
            mdp = lift(env)
        except MDPError as error:
            raise WorldError(f"{name}: its table P is no MDP: {error}") from error
        plain = tuple(str(a) for a in range(mdp.actions))
        return World(
            name=name,
            source=source,
            mdp=mdp,
            discount=discount,
            time_limit=time_limit,
            layout=_layout(env.unwrapped, mdp),
            action_names=LIFTED_ACTIONS.get(type(env.unwrapped).__name__, plain),
        )
    if not isinstance(env.action_space, spaces.Discrete):
        raise WorldError(
            f"{name}: its actions are {env.action_space}, expected Discrete: the agents here choose by number"
        )
    try:
        shape = obs_shape(env.observation_space)
    except ValueError as error:
        raise WorldError(f"{name}: {error}") from error
    return GymWorld(name, source, discount, int(env.action_space.n), shape, time_limit, arguments)


def _layout(env: Any, mdp: TabularMDP) -> Layout | None:
    """The map of a lifted world whose states are the cells of a grid: from its letters, or from its shape."""
    letters = np.asarray(getattr(env, "desc", np.empty((0, 0))))
    if letters.ndim != 2 or letters.size != mdp.states:
        shape = tuple(int(length) for length in getattr(env, "shape", ()) or ())
        if len(shape) != 2 or math.prod(shape) != mdp.states:
            return None
        letters = np.full(mdp.states, ".")
        letters[(mdp.start > 0).numpy()] = "S"
        letters[mdp.next_state[mdp.terminated & (mdp.prob > 0)].numpy()] = "G"
        cliff = np.asarray(getattr(env, "_cliff", np.zeros(shape, bool)))
        letters[cliff.ravel()] = "C"
        letters = letters.reshape(shape)
    letters = letters.astype("U1")
    return Layout(
        glyphs=tuple("".join(row) for row in letters),
        look=torch.tensor([[[LOOKS.index(LIFTED_LOOKS.get(letter, "floor")) for letter in row] for row in letters]]),
        cell=torch.from_numpy(np.argwhere(np.ones(letters.shape, bool))),
        mode=torch.zeros(mdp.states, dtype=torch.int64),
    )
