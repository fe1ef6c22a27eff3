"""N worlds of a kind as one Gymnasium vector environment: `gymnasium.make_vec("quincunx/FourRooms-v0", num_envs=4096)`.

It behaves as Gymnasium's SyncVectorEnv of N `envs.gym.GridWorldEnv` under a TimeLimit does, number by number, in each
autoreset mode; but it steps all of them at once in `envs.simulator`. Of a mixture each episode draws one of its worlds
anew, as in `envs.gym`; a simulator's world lives in one for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from envs import picture
from envs.gym import GridWorldEnv, Rewards, drawable, find, observation_space
from envs.simulator import Simulator
from envs.world import World
from lab import streams

RENDER_MODES = ("ansi", "rgb_array")


class GridWorldVectorEnv(VectorEnv[Any, Any, Any]):
    """N copies of one finite world.

    Args:
        world: a world, or what `envs.load` takes to find one with tables.
        num_envs: N.
        observation: what each state looks like, see `envs.observation`.
        overrides: keys of the world's file, see `envs.load`.
        max_episode_steps: steps after which an episode is truncated; None for the world's own limit, -1 for none.
        autoreset_mode: what follows the end of an episode: a reset in place of the next step, one in the same step
            (with the last observation in `infos["final_obs"]`), or none until `reset(options={"reset_mask": ...})`.
        render_mode: "ansi" for maps in text, "rgb_array" for pictures, a tuple of N, or None.

    Raises:
        WorldError, ObservationError: as `envs.load` and `World.observe`.
        ValueError: for a number of worlds or steps below 1, and as `envs.gym.GridWorldEnv`.
    """

    def __init__(
        self,
        world: World | str = "four-rooms",
        num_envs: int = 1,
        *,
        observation: str = "index",
        overrides: Mapping[str, Any] | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}, expected at least 1")
        if max_episode_steps is not None and max_episode_steps < 1 and max_episode_steps != -1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}, expected at least 1, or -1 for no limit")
        self.world, self.num_envs = find(world, overrides), num_envs
        self.render_mode = drawable(self.world, render_mode, RENDER_MODES)
        limit = self.world.time_limit if max_episode_steps is None else max_episode_steps
        self.max_episode_steps = None if limit == -1 else limit
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**GridWorldEnv.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_action_space = spaces.Discrete(self.world.actions)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.single_observation_space = observation_space(self.world, observation)
        self._rewards = Rewards(self.world.mdp)
        self._table = self.world.observe(observation)
        self._seeds: list[int] = self.np_random.integers(2**63 - 1, size=num_envs).tolist()  # until others are given
        self._worlds = Simulator(  # its observations are states; of a mixture too, all of them are one block
            self.world.mdp,
            torch.zeros(num_envs, dtype=torch.int64),
            observation=torch.arange(self.world.mdp.states),
        )
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)  # and not yet begun again
        self._begun = False

    @cached_property
    def observation_space(self) -> spaces.Space[Any]:  # type: ignore[override]  # it can be set: mypy errs
        """N times the space of one world; made when first asked for, as that of many planes is large."""
        return batch_space(self.single_observation_space, self.num_envs)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]  # one a world
        """As SyncVectorEnv has it: the seed of each world, one of its own where it was never given one."""
        return tuple(self._seeds)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin episodes: in all worlds, or in those of `options["reset_mask"]`, bool [N].

        Args:
            seed: s for the seeds s, s + 1, ... of the worlds, or one for each; None goes on with the next episode.
            options: may hold `reset_mask`; the worlds outside it stay where they are.

        Raises:
            ValueError, TypeError: for another number of seeds, or a mask of another shape or dtype or without a True.
            ResetNeeded: for a mask before the first reset of all.
        """
        seeds = _seeds(seed, self.num_envs)
        mask = _mask(options, self.num_envs)
        if mask is None:
            mask = np.ones(self.num_envs, np.bool_)
        elif not self._begun:
            raise gymnasium.error.ResetNeeded("the worlds have not begun: reset all of them before some")
        self._reseed(seeds, mask)
        self._begun = True
        self._elapsed[mask], self._ended[mask] = 0, False
        return self._observe(self._worlds.reset(None if mask.all() else torch.from_numpy(mask))), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one action in each world; what happens where an episode ended, the autoreset mode says.

        Raises:
            ValueError: for what are not N actions of this world.
            ResetNeeded: before the first reset.
            AssertionError: without autoreset, where a world has ended and was not reset.
        """
        if not self._begun:
            raise gymnasium.error.ResetNeeded("the worlds have not begun: call reset() before step()")
        again, infos = self._ended, dict[str, Any]()
        if self.autoreset_mode == AutoresetMode.DISABLED and again.any():
            raise AssertionError(f"world {again.argmax()} has ended, expected a reset with a reset_mask before a step")
        step = self._worlds.step(self._actions(actions, again))
        self._elapsed += 1
        state, reward = step.obs, self._rewards(step.reward.numpy())
        terminated, truncated = step.terminated.numpy() & ~again, np.zeros_like(again)
        if self.max_episode_steps is not None:  # also where it terminated, as TimeLimit says
            truncated = (self._elapsed >= self.max_episode_steps) & ~again
        if again.any():  # the reset in place of a step
            state, reward[again] = self._begin(again), 0.0
        ended = terminated | truncated
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            if ended.any():
                infos = _final(self._observe(state[torch.from_numpy(ended)]), ended)
                state = self._begin(ended)
        else:
            self._ended = ended
        return self._observe(state), reward, terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """A map or a picture of each world, as `render_mode` says."""
        if self.render_mode is None:
            return None
        if not self._begun:
            raise gymnasium.error.ResetNeeded("the worlds have not begun: call reset() before render()")
        draw = picture.text if self.render_mode == "ansi" else picture.rgb_array
        return tuple(draw(self.world, state) for state in self._worlds.state.tolist())

    def _begin(self, mask: Bool[np.ndarray, "N"]) -> Int64[Tensor, "N"]:
        """Begin the next episode in the worlds of `mask`; the states of all."""
        self._elapsed[mask] = 0
        return self._worlds.reset(torch.from_numpy(mask))

    def _observe(self, state: Int64[Tensor, "n"]) -> Shaped[np.ndarray, "n ..."]:
        """What states look like. It is asked for once a step, after all resets: planes cost more than the step."""
        return self._table.index_select(0, state).numpy()

    def _actions(self, actions: Any, ignored: Bool[np.ndarray, "N"]) -> torch.Tensor:
        """N actions, int64; those of worlds that are `ignored` may be anything."""
        given = np.asarray(actions)
        if given.shape != (self.num_envs,) or given.dtype.kind not in "iu":
            raise ValueError(f"actions are {given.dtype} {list(given.shape)}, expected integers [{self.num_envs}]")
        wrong = ((given < 0) | (given >= self.world.actions)) & ~ignored
        if wrong.any():
            n = int(wrong.argmax())
            raise ValueError(f"action {n} is {given[n]}, expected 0 to {self.world.actions - 1}")
        return torch.from_numpy(np.where(ignored, 0, given).astype(np.int64))

    def _reseed(self, seeds: list[int | None], mask: Bool[np.ndarray, "N"]) -> None:
        """Give the worlds of `mask` the keys of their new seeds; at the very first reset, all the keys of theirs."""
        keys, new = np.zeros(self.num_envs, np.int64), np.full(self.num_envs, not self._begun)
        for n, seed in enumerate(seeds):
            if seed is not None and mask[n]:
                new[n], self._seeds[n] = True, seed
        for n in new.nonzero()[0].tolist():
            keys[n] = streams.derive(self._seeds[n], "world")
        if new.any():
            self._worlds.reseed(torch.from_numpy(keys), torch.from_numpy(new))


def _seeds(seed: int | Sequence[int | None] | None, n: int) -> list[int | None]:
    """A seed, or none, for each world."""
    if seed is None:
        return [None] * n
    seeds: list[int | None] = [seed + i for i in range(n)] if isinstance(seed, int) else list(seed)
    if len(seeds) != n:
        raise ValueError(f"{len(seeds)} seeds are given, expected one for each of {n} worlds")
    for i, one in enumerate(seeds):
        if one is not None and (not isinstance(one, int) or one < 0):
            raise ValueError(f"seed {i} is {one!r}, expected a whole number from 0")
    return seeds


def _mask(options: dict[str, Any] | None, n: int) -> Bool[np.ndarray, "N"] | None:
    """The worlds to reset, None for all."""
    mask = (options or {}).get("reset_mask")
    if mask is None:
        return None
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"reset_mask is {getattr(mask, 'dtype', type(mask).__name__)}, expected a numpy array of bool")
    if mask.shape != (n,) or not mask.any():
        raise ValueError(
            f"reset_mask has shape {list(mask.shape)} and {mask.sum()} True, expected [{n}] and one or more"
        )
    return mask


def _final(obs: Any, ended: Bool[np.ndarray, "N"]) -> dict[str, Any]:
    """What Gymnasium's infos say of the episodes that ended in this step, with the last observations of those."""
    last = np.full(len(ended), None, dtype=object)
    for n, one in zip(ended.nonzero()[0].tolist(), obs, strict=True):
        last[n] = one.copy()
    return {"final_obs": last, "_final_obs": ended.copy(), "final_info": {}, "_final_info": ended.copy()}
