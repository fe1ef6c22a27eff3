"""The words that agents, the loop and the evaluation share.

R counts replicas (independent learners of one kind, side by side), W the worlds that each replica acts in, M any number
of observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Transition:
    """One step of every world of every replica."""

    obs: Shaped[Tensor, "R W *shape"]
    action: Int64[Tensor, "R W"]
    reward: Float32[Tensor, "R W"]
    next_obs: Shaped[Tensor, "R W *shape"]
    """The true successor, also where the episode ended."""
    discount: Float32[Tensor, "R W"]
    """0 where the world terminated, else 1: a time limit is not an end. The agent's gamma multiplies it."""
    last: Bool[Tensor, "R W"]
    """The episode ended, either way: what follows belongs to another one."""


@runtime_checkable
class Agent(Protocol):
    """R learners. Everything they hold is in `state_dict`; replica r is a function of its own seed and experience."""

    replicas: int
    device: torch.device
    """Where it learns, and where observations are expected."""

    def act(self, obs: Shaped[Tensor, "R W *shape"], explore: bool) -> Int64[Tensor, "R W"]:
        """An action for each world. It changes nothing: what it draws is a function of the steps learnt from so far."""
        ...

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from one step of every world. Returns numbers to log, one for each replica, still on the device."""
        ...

    def q_values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M A"]:
        """Action values of observations `[M, *shape]`, or of each replica's own `[R, M, *shape]`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """A tree of tensors and numbers (see `lab.tree`) from which `load_state_dict` continues bit for bit."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, in an agent constructed alike."""
        ...
