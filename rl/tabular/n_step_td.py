"""n-step TD prediction: n rewards, and then the present estimate.

    v(S_t) <- v(S_t) + alpha [G_(t:t+n) - v(S_t)]        once S_(t+n) is known

n = 1 is TD(0); n no less than an episode's length is every-visit Monte Carlo.

Source: Sutton & Barto 2018, sec. 7.1, its box and eq. 7.2; Watkins 1989, ch. 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Float64
from torch import Tensor

from rl import td
from rl.tabular.prediction import Prediction
from rl.tabular.waiting import Waiting, mean, tally
from rl.types import Transition


class NStepTD(Prediction):
    """n-step TD of R replicas (see `rl.tabular.prediction.Prediction`).

    Where an episode is over, what still waits is learnt about at once, the oldest first, as the box has it. The box
    knows no time limit: here what is cut bootstraps from the state in which it was cut, as its value then stands.

    Args:
        n: steps before bootstrapping.
    """

    STATE = (*Prediction.STATE, "waiting")

    def __init__(self, target_policy: Float64[Tensor, "S A"], seeds: Sequence[int], *, n: int, **table: Any) -> None:
        super().__init__(target_policy, seeds, **table)
        self.waiting = Waiting(n, self.device)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t, waiting = transition, self.waiting
        waiting.open(*t.obs.shape)
        waiting.add(t.obs, t.reward.double(), self.discount(t), self.v.visit(t.obs))
        learnt = self._learn(t, waiting.full())
        for when in waiting.due(t.last):
            learnt = learnt + self._learn(t, when)
        self.step += t.obs.shape[1]
        return {"td_error": mean(learnt)}

    def _learn(self, t: Transition, when: Bool[Tensor, "R W"]) -> Float64[Tensor, "2 R"]:
        """Correct the oldest state that waits, where it is time."""
        s, reward, discount, share = self.waiting.oldest()
        error = td.td_learning(self.v[s], reward, discount, self.v[t.next_obs])
        self.v.correct(s, error, when, share)
        self.waiting.drop(when)
        return tally(error, when)
