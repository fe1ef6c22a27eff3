"""On-policy learners: a step can be learnt from when the action that follows it is known, which is one turn later.

Sutton & Barto's boxes (2018, sec. 6.4; 12.7) choose A' from Q before Q learns from (S, A, R, S'), and so does this: the
action of a turn is chosen, and then `update` learns from the step before it. The last step of an episode is followed by
no action and is learnt from at once. Where a time limit cut the episode what follows is worth its expectation under the
epsilon-greedy policy of the moment, for no action was ever chosen there (the book's episodes are never cut).

So worlds that meet in one pair learn about it at different turns, those whose episode it ended first. Each counts as
one of all that were there, which is settled at the visit (see `rl.tabular.table.Table.visit`): the mean of a turn's
own would count an outcome by when it comes, and not by how often.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from rl import td
from rl.tabular.control import Control
from rl.types import Transition


class Former:
    """The step before in every world, once there was one."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.transition: Transition | None = None
        self.device = device

    def state_dict(self) -> dict[str, Tensor]:
        t = self.transition
        return {} if t is None else {field.name: getattr(t, field.name).clone() for field in fields(t)}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        moved = {name: tensor.to(self.device, copy=True) for name, tensor in saved.items()}
        self.transition = Transition(**moved) if moved else None


class OnPolicy(Control):
    """Learners that wait for the next action; their equation is `visit` and `learn`, the rest as in `Control`."""

    STATE: ClassVar[tuple[str, ...]] = (*Control.STATE, "former")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], **arguments: Any) -> None:
        super().__init__(states, actions, seeds, **arguments)
        self.former = Former(self.device)

    @abstractmethod
    def visit(self, transition: Transition) -> None:
        """Every world is at a new pair; all is learnt about the one before."""

    @abstractmethod
    def learn(self, transition: Transition, error: Float64[Tensor, "R W"], when: Bool[Tensor, "R W"]) -> None:
        """Use the error of the step that was visited last, in the worlds `when`."""

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t, before = transition, self.former.transition
        learnt = torch.zeros_like(t.reward, dtype=torch.float64)
        if before is not None:
            q, after = self.q[before.obs], self.q[t.obs]  # where an episode went on, t.obs is what came after
            discount = self.gamma * before.discount.double()
            error = td.sarsa(q, before.action, before.reward.double(), discount, after, t.action)
            self.learn(before, error, ~before.last)
            learnt += error.abs() * ~before.last
        self.visit(t)
        if t.last.any():
            q, after = self.q[t.obs], self.q[t.next_obs]
            odds = self.explorer.odds(after, self.step)
            discount = self.gamma * t.discount.double()
            error = td.expected_sarsa(q, t.action, t.reward.double(), discount, after, odds)
            self.learn(t, error, t.last)
            learnt += error.abs() * t.last
        self.former.transition = t
        said = self.said(learnt)
        self.step += t.obs.shape[1]
        return said
