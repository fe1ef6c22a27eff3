"""Our worlds as Gymnasium environments: `gymnasium.make("quincunx/FourRooms-v0")` once `envs` is imported.

The same tables as the simulator's, one world at a time, with Gymnasium's own generator. The time limit is Gymnasium's
TimeLimit wrapper, which `make` puts on; `make(..., max_episode_steps=50)` sets another.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any, SupportsIndex

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float64

from envs import catalog, picture
from envs.world import World


class GridWorldEnv(gymnasium.Env[Any, Any]):
    """One finite world.

    Args:
        world: a world, or what `envs.load` takes to find one with tables.
        observation: what each state looks like, see `envs.observation`.
        overrides: keys of the world's file, see `envs.load`.
        render_mode: "ansi" for a map in text, "rgb_array" for a picture uint8 [H, W, 3] (worlds with a map), or None.

    Raises:
        WorldError, ObservationError: as `envs.load` and `World.observe`.
        ValueError: for an unknown render mode, a picture of a world without a map, or a world without tables.
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}  # noqa: RUF012 - Gymnasium's own form

    def __init__(
        self,
        world: World | str = "four-rooms",
        *,
        observation: str = "index",
        overrides: Mapping[str, Any] | None = None,
        render_mode: str | None = None,
    ) -> None:
        found = catalog.load(world, overrides) if isinstance(world, str) else world
        if not isinstance(found, World):
            raise ValueError(f"{found.name} has no tables, expected a world of envs.load that is a World")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode is {render_mode!r}, expected None, 'ansi' or 'rgb_array'")
        if render_mode is not None and found.layout is None:
            raise ValueError(f"render_mode is {render_mode!r} and {found.name} has no map, expected None")
        self.world, self.render_mode = found, render_mode
        mdp = found.mdp
        self._next, self._reward, self._terminated = mdp.next_state.numpy(), mdp.reward.numpy(), mdp.terminated.numpy()
        self._total = mdp.prob.cumsum(-1).numpy()  # [S, A, K]
        self._start_total = mdp.start.cumsum(0).numpy()  # [S]
        self._table = found.observe(observation).numpy()
        self.state = 0
        self.action_space = spaces.Discrete(mdp.actions)
        self.observation_space = spaces.Discrete(mdp.states)
        if self._table.ndim > 1:
            low, high = self._table.min(), self._table.max()
            self.observation_space = spaces.Box(low, high, self._table.shape[1:], np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; `options` are not used."""
        super().reset(seed=seed)
        self.state = self._draw(self._start_total)
        return self._observe(), {}

    def step(self, action: SupportsIndex) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take an action. Never truncates: the time limit is a wrapper's."""
        if not self.action_space.contains(action):
            raise ValueError(f"action is {action!r}, expected 0 to {self.world.actions - 1}")
        s, a = self.state, int(action)
        k = self._draw(self._total[s, a])
        self.state = int(self._next[s, a, k])
        return self._observe(), float(self._reward[s, a, k]), bool(self._terminated[s, a, k]), False, {}

    def render(self) -> Any:
        """The map with the agent on it, as `render_mode` says."""
        if self.render_mode == "ansi":
            return picture.text(self.world, self.state)
        return picture.rgb_array(self.world, self.state) if self.render_mode == "rgb_array" else None

    def _draw(self, total: Float64[np.ndarray, "K"]) -> int:
        """An index, by cumulative probabilities that end at 1."""
        u = self.np_random.random() * total[-1]
        return int(np.searchsorted(total, u, side="right"))

    def _observe(self) -> Any:
        return int(self.state) if self._table.ndim == 1 else self._table[self.state].copy()


def gymnasium_id(name: str) -> str:
    """four-rooms -> quincunx/FourRooms-v0."""
    return f"{catalog.NAMESPACE}/{''.join(part.capitalize() for part in name.split('-'))}-v0"


def register() -> None:
    """Tell Gymnasium of every world of this house; doing it twice changes nothing."""
    for name in catalog.names():
        if gymnasium_id(name) in gymnasium.registry:
            continue
        with (catalog.FOLDER / f"{name}.toml").open("rb") as file:
            limit = tomllib.load(file).get("time_limit")
        gymnasium.register(gymnasium_id(name), "envs.gym:GridWorldEnv", max_episode_steps=limit, kwargs={"world": name})
