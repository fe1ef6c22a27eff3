"""What tabular learners of action values share: a table, an explorer, a count of steps. Their equation is `update`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from rl import order, state
from rl.explore import EpsilonGreedy
from rl.tabular.table import Table
from rl.types import Transition, nothing


class Control(ABC):
    """R learners side by side; observations are state indices; the policy they are judged by is greedy.

    Args:
        states, actions: S and A.
        seeds: one for each replica; all that replica r draws is from seeds[r].
        gamma: discount.
        alpha, omega, initial: the table's step sizes and first values (see `rl.tabular.table`).
        epsilon: (start, end) of the chance of a random action, linear over `epsilon_steps` steps of each replica.
        device: where the tables lie.
    """

    STATE: ClassVar[tuple[str, ...]] = ("q", "step")
    """Attributes that a resume needs; a learner that keeps more names them all."""

    def __init__(
        self,
        states: int,
        actions: int,
        seeds: Sequence[int],
        *,
        gamma: float,
        alpha: float,
        omega: float,
        epsilon: tuple[float, float],
        epsilon_steps: int,
        initial: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.replicas, self.device = len(seeds), torch.device(device)
        self.actions, self.gamma = actions, gamma
        self.explorer = EpsilonGreedy(seeds, epsilon, epsilon_steps, device)
        self.q = Table(self.replicas, (states, actions), alpha=alpha, omega=omega, initial=initial, device=device)
        self.step = 0  # steps of each replica learnt from

    @abstractmethod
    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from one step of every world. Returns what `said` makes of the errors."""

    def memory(self, worlds: int) -> Float32[Tensor, "R W 0"]:
        return nothing(self.replicas, worlds, self.device)

    def act(
        self, obs: Int64[Tensor, "R W"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        return self.explorer.act(self.q_values(obs), self.step), memory

    def q_values(self, obs: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M A"]:
        """Action values of states [M], or of each replica's own [R, M]."""
        return self.q.at(obs)

    def policy(
        self, obs: Int64[Tensor, "R M"], memory: Float32[Tensor, "R M 0"]
    ) -> tuple[Int64[Tensor, "R M"], Float32[Tensor, "R M 0"]]:
        return self.q_values(obs).argmax(-1), memory

    def values(self, obs: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M"]:
        return self.q_values(obs).amax(-1)

    def entry(self, transition: Transition) -> Int64[Tensor, "R W"]:
        """Where the pair of each world stands in the table: s A + a."""
        return transition.obs * self.actions + transition.action

    def said(self, error: Float64[Tensor, "R W"]) -> dict[str, Float[Tensor, "R"]]:
        """What is logged of every learner: `td_error`, the mean absolute error, and `epsilon` at this step."""
        epsilon = torch.full((self.replicas,), self.explorer.epsilon(self.step), device=self.device)
        return {"td_error": order.mean(error.abs()), "epsilon": epsilon}

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, self.STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, self.STATE, saved)
