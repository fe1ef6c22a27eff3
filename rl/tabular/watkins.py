"""Watkins's Q(lambda): the errors of Q-learning reach back along the trace, as far as what was done is greedy.

    a not greedy in q(s, .):  e <- 0;    else  e <- gamma lambda e;    e(s, a) += 1
    delta = r + gamma max_a' q(s', a') - q(s, a);    q <- q + alpha delta e

An exploring action says nothing of what greedy ones are worth, so nothing before it may learn from what follows. Of
equals every one is greedy. Traces are zero where an episode ends or is cut.

Departure: the action is chosen after q has learnt from the step before it, as in Q-learning's box, and is greedy or not
by that q. The box of Sutton & Barto 1998, sec. 7.6, chooses and judges it by the q of a moment earlier.

Source: Watkins 1989, sec. 7.2; Sutton & Barto 1998, sec. 7.6; 2018, sec. 12.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rl import td
from rl.tabular.control import Control
from rl.tabular.traces import Traces
from rl.types import Transition


class WatkinsQLambda(Control):
    """Watkins's Q(lambda).

    Args:
        lam: lambda, in [0, 1]; the others as in `rl.tabular.control`.
    """

    STATE: ClassVar[tuple[str, ...]] = (*Control.STATE, "traces")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], *, lam: float, **arguments: Any) -> None:
        super().__init__(states, actions, seeds, **arguments)
        self.lam = lam
        self.traces = Traces(self.replicas, states * actions, self.device)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t = transition
        always, q = torch.ones_like(t.last), self.q[t.obs]
        greedy = td.of(q, t.action) == q.amax(-1)
        self.traces.visit(self.q, self.entry(t), self.gamma * self.lam * greedy.double())
        discount = self.gamma * t.discount.double()
        error = td.q_learning(q, t.action, t.reward.double(), discount, self.q[t.next_obs])
        self.traces.correct(self.q, error, always)
        self.traces.forget(t.last)
        said = self.said(error)
        self.step += t.obs.shape[1]
        return said
