"""Sarsa(lambda): each error of Sarsa reaches back along the trace of what was done.

    delta = r + gamma q(s', a') - q(s, a);    e <- gamma lambda e;    e(s, a) += 1;    q <- q + alpha delta e

Accumulating traces, set to zero where an episode ends or is cut. Lambda 0 is Sarsa, lambda 1 learns from whole returns.

Source: Rummery & Niranjan 1994; Sutton & Barto 1998, sec. 7.5 (box); 2018, sec. 12.7 with one-hot features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from rl.tabular.on_policy import OnPolicy
from rl.tabular.traces import Traces
from rl.types import Transition


class SarsaLambda(OnPolicy):
    """Sarsa(lambda); `rl.tabular.on_policy` says when it learns, and what it does where an episode was cut.

    Args:
        lam: lambda, in [0, 1]; the others as in `rl.tabular.control`.
    """

    STATE: ClassVar[tuple[str, ...]] = (*OnPolicy.STATE, "traces")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], *, lam: float, **arguments: Any) -> None:
        super().__init__(states, actions, seeds, **arguments)
        self.lam = lam
        self.traces = Traces(self.replicas, states * actions, self.device)

    def visit(self, transition: Transition) -> None:
        decay = torch.full_like(transition.reward, self.gamma * self.lam, dtype=torch.float64)
        self.traces.visit(self.q, self.entry(transition), decay)

    def learn(self, transition: Transition, error: Float64[Tensor, "R W"], when: Bool[Tensor, "R W"]) -> None:
        self.traces.correct(self.q, error, when)
        self.traces.forget(when & transition.last)
