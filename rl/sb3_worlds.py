"""Our worlds as stable-baselines3 wants them, a VecEnv that resets by itself what has ended; and the way back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Bool, Int64, Shaped
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from envs.gymworlds import obs_shape
from envs.types import Step, Worlds
from rl.sb3_spaces import described, read


class WorldsVecEnv(VecEnv):  # type: ignore[misc]  # the library is not typed here
    """N worlds stepped together.

    Each `info` is theirs: `terminal_observation` and `TimeLimit.truncated` where an episode ended (a time limit still
    bootstraps), and `episode` with its return r and length l, as their Monitor has it.

    Args:
        worlds: N of them.
        space: of one observation, see `rl.sb3_spaces`.
    """

    def __init__(self, worlds: Worlds, space: spaces.Space[Any]) -> None:
        self.worlds = worlds
        self.ended: list[tuple[float, int]] = []  # (return, length) of the episodes that ended; a reader clears it
        self._running = np.zeros(worlds.n)
        self._length = np.zeros(worlds.n, np.int64)
        super().__init__(worlds.n, space, spaces.Discrete(worlds.actions))

    def reset(self) -> np.ndarray:
        self._running[:], self._length[:] = 0, 0
        return self.worlds.reset().cpu().numpy()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = torch.as_tensor(np.asarray(actions, np.int64))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        step = self.worlds.step(self._actions)
        last = step.terminated | step.truncated
        obs, reward = step.obs.cpu().numpy(), step.reward.cpu().numpy()
        self._running += reward
        self._length += 1
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for n in last.nonzero().flatten().tolist():
            whole = (float(self._running[n]), int(self._length[n]))
            self.ended.append(whole)
            infos[n] = {"terminal_observation": obs[n], "TimeLimit.truncated": bool(step.truncated[n])}
            infos[n]["episode"] = dict(zip("rl", whole, strict=True))
            self._running[n], self._length[n] = 0.0, 0
        if last.any():
            obs = self.worlds.reset(last).cpu().numpy()
        return obs, reward, last.cpu().numpy(), infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.worlds, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise AttributeError(f"{attr_name}: the worlds are one object, expected no attribute to be set in some of them")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        raise AttributeError(f"{method_name}: the worlds are one object, expected no method to be called in some")

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper[Any, Any, Any, Any]], indices: Any = None
    ) -> Sequence[bool]:
        return [False for _ in self._get_indices(indices)]


class VecWorlds:
    """A VecEnv as `envs.types.Worlds`: the true successor at an end, the next episode's beginning at the `reset` after.

    Which episodes there are is the VecEnv's to say, so nothing here can be saved or resumed.

    Args:
        env: any with discrete actions. Observations are boxes, or flattened as Gymnasium does.
        device: where the results of `reset` and `step` live.
    """

    def __init__(self, env: VecEnv, device: torch.device | str = "cpu") -> None:
        self.env, self.device, self.n = env, torch.device(device), env.num_envs
        self.actions, self.obs_shape = int(env.action_space.n), obs_shape(env.observation_space)
        self._first = int(env.action_space.start)
        self._next: np.ndarray | None = None
        self.said: dict[str, Any] = {}
        """`rewards`, `dones` and `infos` of the last step, as the VecEnv put them: callbacks ask for them."""
        self.ended: list[dict[str, Any]] = []  # what their Monitor says of the episodes that ended; a reader clears it

    def reset(self, mask: Bool[Tensor, "N"] | None = None) -> Shaped[Tensor, "N ..."]:
        if mask is None or self._next is None:
            self._next = self.env.reset()
        return self._read(self._next)

    def step(self, action: Int64[Tensor, "N"]) -> Step:
        self._next, reward, done, infos = self.env.step(action.cpu().numpy() + self._first)
        self.said = {"rewards": reward, "dones": done, "infos": infos}
        self.ended += [info["episode"] for info in infos if "episode" in info]
        obs = np.array(self._next)
        for n in np.flatnonzero(done):
            obs[n] = infos[n]["terminal_observation"]
        cut = np.array([info.get("TimeLimit.truncated", False) for info in infos]) & done
        flags = (torch.as_tensor(flag, device=self.device) for flag in (done & ~cut, cut))
        return Step(self._read(obs), torch.as_tensor(reward, dtype=torch.float32, device=self.device), *flags)

    def _read(self, obs: np.ndarray) -> Shaped[Tensor, "N ..."]:
        return read(self.env.observation_space, obs).to(self.device)

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError("a VecEnv does not say where it is: expected a run of `qx train` to be resumed")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state_dict()


def vec_env(env: Any, known: spaces.Space[Any] | None = None) -> Any:
    """An environment, a VecEnv or a Gymnasium id as a VecEnv that our networks can learn in.

    Raises:
        ValueError: for actions that are not Discrete, observations that are neither Box nor Discrete, or others than
            the `known` ones.
    """
    made = BaseAlgorithm._wrap_env(gymnasium.make(env) if isinstance(env, str) else env, verbose=0)
    seen = made.observation_space
    if not isinstance(made.action_space, spaces.Discrete):
        raise ValueError(f"actions are {made.action_space}, expected Discrete")
    if not isinstance(seen, spaces.Box | spaces.Discrete):
        raise ValueError(f"observations are {seen}, expected Box or Discrete: flatten them")
    if known is not None and described(known) != described(seen):
        raise ValueError(f"observations are {seen}, expected {known}")
    return made
