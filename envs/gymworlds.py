"""Any Gymnasium environment with discrete actions as `Worlds`: N of them, stepped one after another on the CPU.

Each episode begins with `env.reset(seed=...)`, a seed derived from the world's key and the episode's number. So what a
world is at any moment is a function of its key, its episode and the actions since: that is what `state_dict` keeps,
and `load_state_dict` plays the actions of the running episode again. Nothing is pickled, and resuming is exact for
every environment whose episodes are a function of their seed.

Gymnasium's own TimeLimit, order and checker wrappers are taken off and the limit is counted here: nearly all of a
step's time is then the environment's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from envs import atari
from envs.types import Step
from lab import streams

COLOURS = (1, 3, 4)  # how many a picture may have: gray, red-green-blue, and transparency


@dataclass(frozen=True)
class GymWorld:
    """A Gymnasium environment that is stepped as it is: no table, no exact optimum."""

    name: str
    """Its id."""
    source: str
    discount: float
    actions: int
    obs_shape: tuple[int, ...]
    time_limit: int | None = None
    """Steps after which an episode is truncated."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """What `gymnasium.make` gets besides the id."""

    def simulate(self, keys: Int64[Tensor, "N"], *, device: torch.device | str = "cpu") -> GymWorlds:
        """One environment for each key; observations are handed over on `device`."""
        envs = [bare(make(self.name, self.arguments)) for _ in range(len(keys))]
        return GymWorlds(envs, keys, time_limit=self.time_limit, device=device)


class GymWorlds:
    """N environments of one kind (see `envs.types.Worlds`).

    Observations are float32, pictures bytes: boxes as they are, anything else flattened as Gymnasium does (a number
    becomes one-hot, a dict or tuple of spaces one vector). A picture's colours come first: [C, H, W].
    An episode that ended stands still until it is reset: the same observation and flags, reward 0.

    Args:
        envs: environments with a Discrete action space, without a time limit of their own.
        keys: one key for each.
        time_limit: steps after which an episode is truncated, None for never.
        device: where the results of `reset` and `step` live.
    """

    def __init__(
        self,
        envs: list[gymnasium.Env[Any, Any]],
        keys: Int64[Tensor, "N"],
        *,
        time_limit: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._envs, self._keys, self.time_limit = envs, keys.tolist(), time_limit
        self.device = torch.device(device)
        space = envs[0].action_space
        assert isinstance(space, spaces.Discrete)
        self.n, self.actions, self._first_action = len(envs), int(space.n), int(space.start)
        self._space = envs[0].observation_space
        self.obs_shape = obs_shape(self._space)
        self._obs = np.zeros((self.n, *self.obs_shape), obs_type(self._space))
        self._colours_last = colours_last(self._space)
        self._episode = [0] * self.n  # episodes begun
        self._past: list[list[np.int64]] = [[] for _ in envs]  # actions of the running episode
        self._over = [False] * self.n
        self._reward = np.zeros(self.n, np.float32)
        self._flags = np.zeros((2, self.n), np.bool_)  # terminated, truncated

    def reset(self, mask: Bool[Tensor, "N"] | None = None) -> Shaped[Tensor, "N ..."]:
        """Begin a new episode in the worlds of `mask` (None: in all). Returns the observations of all N worlds."""
        for n in range(self.n) if mask is None else mask.nonzero().squeeze(1).tolist():
            self._episode[n] += 1
            self._begin(n)
        return self._observed()

    def step(self, action: Int64[Tensor, "N"]) -> Step:
        """Take one action in each world. Raises RuntimeError before the first `reset()` of all worlds."""
        if not all(self._episode):
            raise RuntimeError("the worlds have not begun: call reset() before step()")
        for n, a in enumerate(action.cpu().numpy()):  # Discrete checks numpy's numbers faster than Python's
            self._advance(n, a)
        reward, flags = (torch.from_numpy(array.copy()).to(self.device) for array in (self._reward, self._flags))
        return Step(self._observed(), reward, flags[0], flags[1])

    def state_dict(self) -> dict[str, Any]:
        """The number of each world's episode and the actions since it began; a tree of tensors."""
        return {
            "episode": torch.tensor(self._episode),
            "length": torch.tensor([len(past) for past in self._past]),
            "actions": torch.tensor([int(a) for past in self._past for a in past], dtype=torch.int64),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Play the running episodes again. Raises ValueError when the state is of another number of worlds."""
        if len(state["episode"]) != self.n:
            raise ValueError(f"the saved state is of {len(state['episode'])} worlds, expected {self.n}")
        self._episode = state["episode"].tolist()
        for n, past in enumerate(state["actions"].split(state["length"].tolist())):
            if self._episode[n]:
                self._begin(n)
                for a in past.numpy():
                    self._advance(n, a)

    def _begin(self, n: int) -> None:
        seed = streams.derive(self._keys[n], "episode", self._episode[n]) % 2**31  # some environments take no more
        self._see(n, self._envs[n].reset(seed=seed)[0])
        self._past[n], self._over[n] = [], False
        self._reward[n], self._flags[:, n] = 0, False

    def _advance(self, n: int, action: np.int64) -> None:
        """One step of world n."""
        if self._over[n]:
            self._reward[n] = 0
            return
        obs, reward, terminated, truncated, _ = self._envs[n].step(action + self._first_action)
        self._see(n, obs)
        self._reward[n] = reward
        past = self._past[n]
        past.append(action)
        if terminated or truncated or len(past) == self.time_limit:
            self._over[n] = True
            self._flags[:, n] = terminated, not terminated

    def _see(self, n: int, obs: Any) -> None:
        if self._colours_last:
            obs = np.moveaxis(obs, -1, 0)
        self._obs[n] = obs if isinstance(self._space, spaces.Box) else np.asarray(spaces.flatten(self._space, obs))

    def _observed(self) -> Shaped[Tensor, "N ..."]:
        return torch.from_numpy(self._obs.copy()).to(self.device)


def obs_shape(space: spaces.Space[Any]) -> tuple[int, ...]:
    """The shape of one observation. Raises ValueError for a space that has no fixed one."""
    if colours_last(space):
        height, width, colours = space.shape or ()
        return (colours, height, width)
    if isinstance(space, spaces.Box):
        return tuple(space.shape)
    if not space.is_np_flattenable:
        raise ValueError(f"observations are {space}, expected a space of a fixed shape")
    return (spaces.flatdim(space),)


def obs_type(space: spaces.Space[Any]) -> type[np.float32] | type[np.uint8]:
    """Bytes where all is bytes, as pictures are: a quarter of the room in a replay. Else float32."""
    return np.uint8 if isinstance(space, spaces.Box) and space.dtype == np.uint8 else np.float32


def colours_last(space: spaces.Space[Any]) -> bool:
    """Whether observations are pictures [H, W, C]; convolutions want [C, H, W]."""
    if obs_type(space) is np.float32 or len(space.shape or ()) != 3:
        return False
    first, _, last = space.shape or ()
    return last in COLOURS and first not in COLOURS


def make(name: str, arguments: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """The environment of that id; a game of Atari as agents see it (see `envs.atari`)."""
    if name.startswith(atari.NAMESPACE):
        return atari.make(name, **arguments)
    return gymnasium.make(name, disable_env_checker=True, **arguments)


def bare(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """Without the wrappers that `gymnasium.make` puts around every environment."""
    while isinstance(env, TimeLimit | OrderEnforcing | PassiveEnvChecker):
        env = env.env
    return env
