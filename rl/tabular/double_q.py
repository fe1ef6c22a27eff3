"""Double Q-learning: two tables, each judging the action that the other would choose.

    with chance 1/2   q1(s, a) <- q1(s, a) + alpha [r + gamma q2(s', argmax q1(s', .)) - q1(s, a)]
    else              q2(s, a) <- q2(s, a) + alpha [r + gamma q1(s', argmax q2(s', .)) - q2(s, a)]

The maximum of noisy values is too large in the mean; the value of an action that other noise has chosen is not. It acts
by the mean of both, which is greedy for the same actions as their sum. Of equals argmax is the first (the book: any).

Source: van Hasselt, "Double Q-learning", NIPS 2010, alg. 1; Sutton & Barto 2018, sec. 6.7, eq. 6.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from lab import streams
from rl import td
from rl.explore import stream_keys, world_keys
from rl.tabular.control import Control
from rl.tabular.table import Table
from rl.types import Transition


class DoubleQLearning(Control):
    """Double Q-learning; `rl.tabular.control` says what it is made of. Each world tosses a coin of its own."""

    STATE: ClassVar[tuple[str, ...]] = (*Control.STATE, "other")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], **arguments: Any) -> None:
        super().__init__(states, actions, seeds, **arguments)
        first = self.q
        self.other = Table(
            self.replicas,
            (states, actions),
            alpha=first.alpha,
            omega=first.omega,
            initial=arguments.get("initial", 0.0),
            device=self.device,
        )
        self.coin = stream_keys(seeds, "coin").to(self.device)

    def q_values(self, obs: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M A"]:
        """The mean of both tables."""
        return (self.q.at(obs) + self.other.at(obs)) / 2

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t = transition
        heads = streams.uniform(world_keys(self.coin, t.obs.shape[1]), self.step) < 0.5
        r, discount = t.reward.double(), self.gamma * t.discount.double()
        here, there = (self.q[t.obs], self.other[t.obs]), (self.q[t.next_obs], self.other[t.next_obs])
        first = td.double_q_learning(here[0], t.action, r, discount, q_t_value=there[1], q_t_selector=there[0])
        second = td.double_q_learning(here[1], t.action, r, discount, q_t_value=there[0], q_t_selector=there[1])
        self.q.move(self.entry(t), first, heads)
        self.other.move(self.entry(t), second, ~heads)
        said = self.said(torch.where(heads, first, second))
        self.step += t.obs.shape[1]
        return said
