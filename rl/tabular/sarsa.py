"""Sarsa: on-policy, for its target is the action that is taken next, exploration and all.

    q(s, a) <- q(s, a) + alpha [r + gamma q(s', a') - q(s, a)]

It converges to the values of the policy that it follows: with a constant epsilon to those of the best epsilon-greedy
policy, with an epsilon that vanishes slowly (greedy in the limit with infinite exploration) to q*.

Source: Rummery & Niranjan 1994; Sutton & Barto 2018, sec. 6.4; Zhao 2025, sec. 7.2; Singh, Jaakkola, Littman &
Szepesvari, "Convergence results for single-step on-policy reinforcement-learning algorithms", Machine Learning 2000.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from rl.tabular.on_policy import OnPolicy
from rl.types import Transition


class Sarsa(OnPolicy):
    """Sarsa; `rl.tabular.on_policy` says when it learns, and what it does where an episode was cut."""

    STATE: ClassVar[tuple[str, ...]] = (*OnPolicy.STATE, "share")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], **arguments: Any) -> None:
        super().__init__(states, actions, seeds, **arguments)
        self.share = torch.zeros(0, dtype=torch.float64, device=self.device)  # [R, W] from the first step on

    def visit(self, transition: Transition) -> None:
        self.share = self.q.visit(self.entry(transition))

    def learn(self, transition: Transition, error: Float64[Tensor, "R W"], when: Bool[Tensor, "R W"]) -> None:
        self.q.correct(self.entry(transition), error, when, self.share)
