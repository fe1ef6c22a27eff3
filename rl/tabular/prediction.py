"""What tabular learners of a given policy's values share, and the simplest of them, TD(0).

    v(s) <- v(s) + alpha [r + gamma v(s') - v(s)]

They act as the policy says, so they learn on-policy. The step sizes are those of `rl.tabular.table`.

Source: Sutton, "Learning to predict by the methods of temporal differences", Machine Learning 1988; Sutton & Barto
2018, sec. 6.1 (TD(0)); Zhao 2025, sec. 7.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from lab import streams
from rl import state, td
from rl.explore import sample, stream_keys, world_keys
from rl.tabular.table import Table
from rl.types import Transition, nothing


class Following(ABC):
    """R learners of one policy's values side by side; observations are state indices.

    They follow it, unless a subclass puts another `behaviour` in its place.

    Args:
        target_policy: the probability of each action in each state, whose values are learnt.
        seeds: one for each replica; all that replica r draws is from seeds[r].
        gamma: discount.
        device: where it learns.
    """

    STATE: ClassVar[tuple[str, ...]] = ("step",)
    """Attributes that a resume needs; a learner that keeps more names them all."""

    def __init__(
        self,
        target_policy: Float64[Tensor, "S A"],
        seeds: Sequence[int],
        *,
        gamma: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.replicas, self.device, self.gamma = len(seeds), torch.device(device), gamma
        self.target_policy = self.behaviour = target_policy.to(device)
        self.key = stream_keys(seeds, "policy").to(device)
        self.step = 0  # steps of each replica learnt from

    @abstractmethod
    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from one step of every world.

        Returns `td_error`: the mean absolute error, over the worlds, of what was learnt about in this turn.
        """

    @abstractmethod
    def values(self, obs: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M"]:
        """Values of states [M], or of each replica's own [R, M]."""

    def memory(self, worlds: int) -> Float32[Tensor, "R W 0"]:
        return nothing(self.replicas, worlds, self.device)

    def act(
        self, obs: Int64[Tensor, "R W"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        chance = streams.uniform(world_keys(self.key, obs.shape[1]), self.step)
        return sample(self.behaviour[obs], chance), memory

    def policy(
        self, obs: Int64[Tensor, "R M"], memory: Float32[Tensor, "R M 0"]
    ) -> tuple[Float64[Tensor, "R M A"], Float32[Tensor, "R M 0"]]:
        return self.target_policy[obs], memory

    def discount(self, transition: Transition) -> Float64[Tensor, "R W"]:
        """gamma, and 0 where the world ended."""
        return self.gamma * transition.discount.double()

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, self.STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, self.STATE, saved)


class Prediction(Following):
    """Followers with a table `v` of values.

    Args:
        target_policy, seeds, gamma, device: as in `Following`.
        alpha, omega, initial: the table's step sizes and first values (see `rl.tabular.table`).
    """

    STATE = (*Following.STATE, "v")

    def __init__(
        self,
        target_policy: Float64[Tensor, "S A"],
        seeds: Sequence[int],
        *,
        gamma: float,
        alpha: float | Float64[Tensor, "R 1"],
        omega: float,
        initial: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(target_policy, seeds, gamma=gamma, device=device)
        shape = (len(target_policy),)
        self.v = Table(self.replicas, shape, alpha=alpha, omega=omega, initial=initial, device=device)

    def values(self, obs: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M"]:
        return self.v.at(obs)


class TD0(Prediction):
    """TD(0): one step, then the present estimate. A time limit bootstraps like any other step."""

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t = transition
        error = td.td_learning(self.v[t.obs], t.reward.double(), self.discount(t), self.v[t.next_obs])
        self.v.move(t.obs, error)
        self.step += t.obs.shape[1]
        return {"td_error": error.abs().mean(1)}
