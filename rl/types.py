"""The words that agents, the loop and the evaluation share.

R counts replicas (independent learners of one kind, side by side), W the worlds that each replica acts in, M any number
of observations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Transition:
    """One step of every world of every replica."""

    obs: Shaped[Tensor, "R W *shape"]
    memory: Float32[Tensor, "R W *memory"]
    """What the agent remembered when it saw `obs` (see `Agent.memory`)."""
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

    def memory(self, worlds: int) -> Float32[Tensor, "R W *memory"]:
        """What it carries from step to step in each of W worlds, as an episode begins: zeros, of no size if nothing."""
        ...

    def act(
        self, obs: Shaped[Tensor, "R W *shape"], memory: Float32[Tensor, "R W *memory"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W *memory"]]:
        """How it behaves while it learns: an action for each world, and what to remember of it.

        It changes nothing: what it draws is a function of the steps learnt from so far.
        """
        ...

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from one step of every world. Returns numbers to log, one for each replica, still on the device."""
        ...

    def policy(
        self, obs: Shaped[Tensor, "R M *shape"], memory: Float32[Tensor, "R M *memory"]
    ) -> tuple[Int64[Tensor, "R M"] | Float[Tensor, "R M A"], Float32[Tensor, "R M *memory"]]:
        """The policy that it is judged by: one action for each observation, or the probability of each action.

        Nothing is drawn: who plays it draws. Beside it, what to remember of the step.
        """
        ...

    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]:
        """What it thinks observations are worth: `[M, *shape]`, or each replica's own `[R, M, *shape]`.

        Each stands alone, as the first of an episode.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """A tree of tensors and numbers (see `lab.tree`) from which `load_state_dict` continues bit for bit."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, in an agent constructed alike."""
        ...


@runtime_checkable
class Predictor(Agent, Protocol):
    """An agent that learns what a given policy is worth, and nothing else: judged by the error of its values."""

    target_policy: Float64[Tensor, "S A"]
    """The policy whose values it estimates."""


def nothing(replicas: int, worlds: int, device: torch.device) -> Float32[Tensor, "R W 0"]:
    """The memory of an agent that has none."""
    return torch.zeros(replicas, worlds, 0, device=device)
