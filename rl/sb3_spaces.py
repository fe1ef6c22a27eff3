"""Spaces of observations between stable-baselines3 and us: what worlds show, what networks read, what JSON holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Shaped
from torch import Tensor

from envs.gym import observation_space
from envs.gymworlds import GymWorld, obs_type
from envs.world import World


def space_of(world: World | GymWorld, observation: str) -> spaces.Space[Any]:
    """The space of what agents see of a world: Discrete for a number, else a Box."""
    if isinstance(world, World):
        return observation_space(world, observation)
    if world.simulate(torch.zeros(1, dtype=torch.int64)).reset().dtype == torch.uint8:
        return spaces.Box(0, 255, world.obs_shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, world.obs_shape, np.float32)


def read(space: spaces.Space[Any], obs: np.ndarray) -> Shaped[Tensor, "B ..."]:
    """A batch of observations as our networks read it: float32 or bytes; what is no box is flattened (one-hot)."""
    if not isinstance(space, spaces.Box):
        obs = np.stack([np.asarray(spaces.flatten(space, one)) for one in obs])
    return torch.from_numpy(np.array(obs, obs_type(space)))


def described(space: spaces.Space[Any]) -> dict[str, Any]:
    """A Box or a Discrete in JSON; of a Box the shape and type, for bounds are never asked for."""
    if isinstance(space, spaces.Discrete):
        return {"n": int(space.n), "start": int(space.start)}
    return {"shape": list(space.shape or ()), "dtype": str(space.dtype)}


def space_from(found: dict[str, Any]) -> spaces.Space[Any]:
    """The space that `described` turned into JSON."""
    if "n" in found:
        return spaces.Discrete(found["n"], start=found["start"])
    low, high = (0, 255) if found["dtype"] == "uint8" else (-np.inf, np.inf)
    return spaces.Box(low, high, tuple(found["shape"]), np.dtype(found["dtype"]).type)
