"""Our worlds as Gymnasium environments: `gymnasium.make("quincunx/FourRooms-v0")` once `envs` is imported.

Without that import, `gymnasium.make("envs:quincunx/FourRooms-v0")`.

The same tables as the simulator's, one world at a time, and the same draws (see `envs.simulator`): seed s is the world
whose key is `streams.derive(s, "world")`, a reset without a seed begins its next episode. Not so for a mixture
(`envs.mixture`): here each episode draws one of its worlds anew, while a simulator's world lives in one for ever. A
world that was never given a seed has one of its own, `np_random_seed`. `envs.vector` is N of them. The time limit is
Gymnasium's TimeLimit wrapper, which `make` puts on; `make(..., max_episode_steps=50)` sets another, -1 none.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from typing import Any, SupportsIndex

import gymnasium
import numpy as np
from gymnasium import spaces
from torch import Tensor

from envs import catalog, picture
from envs.mdp import TabularMDP
from envs.observation import bounds
from envs.pixels.screen import Screen
from envs.simulator import sampling
from envs.world import World
from lab import streams

RENDER_MODES = ("ansi", "rgb_array", "human")
FPS = 4
SHARED = ("world", "_next", "_reward", "_rewards", "_terminated", "_start", "_limits", "_table")  # by a copy


class GridWorldEnv(gymnasium.Env[Any, Any]):
    """One finite world.

    Args:
        world: a world, or what `envs.load` takes to find one with tables.
        observation: what each state looks like, see `envs.observation`.
        overrides: keys of the world's file, see `envs.load`.
        render_mode: "ansi" for a map in text, "rgb_array" for a picture uint8 [H, W, 3], "human" to show each step on
            standard output, in place and in colours where that is a terminal, or None. Only worlds with a map.

    Raises:
        WorldError, ObservationError: as `envs.load` and `World.observe`.
        ValueError: for an unknown render mode, a picture of a world without a map, a world without tables, or an
            override of the time limit.
    """

    metadata = {"render_modes": list(RENDER_MODES), "render_fps": FPS}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        world: World | str = "four-rooms",
        *,
        observation: str = "index",
        overrides: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        self.world = find(world, overrides)
        self.render_mode = drawable(self.world, render_mode, RENDER_MODES)
        mdp = self.world.mdp
        self._next, self._terminated = mdp.next_state.numpy(), mdp.terminated.numpy()
        self._reward, self._rewards = mdp.reward.numpy(), Rewards(mdp)
        self._start = sampling.thresholds(mdp.start[None], 53)[0].numpy()  # [S]
        limits = sampling.thresholds(mdp.prob.flatten(0, 1), 24)[:, :-1]  # no draw reaches the last
        self._limits = limits.int().view(mdp.states, mdp.actions, -1).numpy()  # [S, A, K - 1]
        self._table = self.world.observe(observation).numpy()
        self.action_space = spaces.Discrete(mdp.actions)
        self.observation_space = observation_space(self.world, observation)
        self.state = 0
        self._key: int | None = None
        self._episode = self._stream = self._elapsed = 0
        self._screen = Screen(FPS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode: the first of a seed's, or the next; `options` are not used."""
        super().reset(seed=seed)
        if seed is not None:
            self._key, self._episode = streams.derive(seed, "world"), 0
        elif self._key is None:
            self._key, self._episode = streams.derive(self._entropy(), "world"), 0
        else:
            self._episode += 1
        self._stream, self._elapsed = streams.bits_of(streams.bits_of(self._key, -1), self._episode), 0
        draw = streams.bits_of(self._stream, 0) >> 11 & 2**53 - 1
        self.state = int(np.searchsorted(self._start, draw, side="right"))
        if self.render_mode == "human":
            self.render()
        return self._observe(), {}

    def step(self, action: SupportsIndex) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action. Never truncates: the time limit is a wrapper's.

        Raises:
            ValueError: for what is no action of this world.
            ResetNeeded: before the first `reset`.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action is {action!r}, expected 0 to {self.world.actions - 1}")
        if self._key is None:
            raise gymnasium.error.ResetNeeded("the world has not begun: call reset() before step()")
        s, a = self.state, int(action)
        self._elapsed += 1
        k = 0
        if self._limits.shape[2]:
            draw = streams.bits_of(self._stream, self._elapsed) >> 40 & 2**24 - 1
            k = int(np.searchsorted(self._limits[s, a], draw, side="right"))
        self.state = int(self._next[s, a, k])
        if self.render_mode == "human":
            self.render()
        reward = float(self._rewards(np.float32(self._reward[s, a, k])))
        return self._observe(), reward, bool(self._terminated[s, a, k]), False, {}

    def render(self) -> Any:
        """The map with the agent on it, as `render_mode` says; "human" shows it and returns None."""
        if self.render_mode == "human":
            draw = picture.terminal if self._screen.terminal else picture.text
            self._screen.show(draw(self.world, self.state))
            return None
        if self.render_mode == "ansi":
            return picture.text(self.world, self.state)
        return picture.rgb_array(self.world, self.state) if self.render_mode == "rgb_array" else None

    def __deepcopy__(self, memo: dict[int, Any]) -> GridWorldEnv:
        """A copy that goes on alike; the tables, which never change, are shared."""
        memo |= {id(shared): shared for shared in (getattr(self, name) for name in SHARED)}
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__ = copy.deepcopy(self.__dict__, memo)
        return twin

    def _entropy(self) -> int:
        """The seed of a world that was given none: `np_random_seed`, or a draw from a generator somebody put in."""
        seed = self.np_random_seed
        return seed if seed >= 0 else int(self.np_random.integers(2**63 - 1))

    def _observe(self) -> Any:
        return self._table[self.state].copy()  # an int64 where the table has one dimension


class Rewards:
    """float32 rewards, as the simulator keeps them, to the doubles that the world's table has for them.

    So a reward of -0.1 is -0.1 in both faces. Of rewards that are one number in float32, all become the least.
    """

    def __init__(self, mdp: TabularMDP) -> None:
        reward = mdp.reward.flatten()
        self._plain = bool((reward.float().double() == reward).all())  # each is itself
        exact = np.unique(reward[:1].numpy() if self._plain else reward.numpy())
        self._single, first = np.unique(exact.astype(np.float32), return_index=True)
        self._double = exact[first]

    def __call__(self, reward: Any) -> Any:
        """float32 [*shape] -> float64 [*shape], in new memory."""
        return reward.astype(np.float64) if self._plain else self._double[np.searchsorted(self._single, reward)]


def find(world: World | str, overrides: Mapping[str, Any] | None) -> World:
    """The world with tables that is asked for. Raises ValueError for one without, and as `envs.load`."""
    if "time_limit" in (overrides or {}):
        raise ValueError("an override of time_limit would change nothing, expected max_episode_steps in its place")
    found = catalog.load(world, overrides) if isinstance(world, str) else world
    if not isinstance(found, World):
        raise ValueError(f"{found.name} has no tables, expected a world of envs.load that is a World")
    return found


def drawable(world: World, render_mode: str | None, modes: tuple[str, ...]) -> str | None:
    """`render_mode`, if `world` can be drawn so. Raises ValueError."""
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"render_mode is {render_mode!r}, expected None, {', '.join(map(repr, modes))}")
    if render_mode is not None and any(part.layout is None for part in world.parts or (world,)):
        raise ValueError(f"render_mode is {render_mode!r} and {world.name} has no map, expected None")
    return render_mode


def observation_space(world: World, kind: str) -> spaces.Space[Any]:
    """Discrete for a number, else a Box."""
    table: Tensor = world.observe(kind)
    if table.ndim == 1:
        return spaces.Discrete(world.mdp.states)
    low, high = bounds(kind)
    return spaces.Box(low, high, tuple(table.shape[1:]), table.numpy().dtype.type)


def gymnasium_ids(name: str) -> tuple[str, str]:
    """four-rooms -> quincunx/FourRooms-v0, quincunx/four-rooms-v0."""
    camel = "".join(part.capitalize() for part in name.split("-"))
    return f"{catalog.NAMESPACE}/{camel}-v0", f"{catalog.NAMESPACE}/{name}-v0"


def register() -> None:
    """Tell Gymnasium of every world of this house, by both its names; doing it twice changes nothing."""
    for name in catalog.names():
        ids = [one for one in gymnasium_ids(name) if one not in gymnasium.registry]
        if not ids:
            continue
        with (catalog.FOLDER / f"{name}.toml").open("rb") as file:
            limit = tomllib.load(file).get("time_limit")
        for one in ids:
            gymnasium.register(
                one,
                "envs.gym:GridWorldEnv",
                vector_entry_point="envs.vector:GridWorldVectorEnv",
                max_episode_steps=limit,
                kwargs={"world": name},
            )
