"""Q-learning on a table: off-policy, for its target is the best action whatever is done.

    q(s, a) <- q(s, a) + alpha [r + gamma max_a' q(s', a') - q(s, a)]

Source: Watkins & Dayan, "Q-learning", Machine Learning 1992; Sutton & Barto 2018, sec. 6.5; Zhao 2025, sec. 7.4.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from rl import td
from rl.tabular.control import Control
from rl.types import Transition


class QLearning(Control):
    """Q-learning; `rl.tabular.control` says what it is made of."""

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t = transition
        discount = self.gamma * t.discount.double()
        error = td.q_learning(self.q[t.obs], t.action, t.reward.double(), discount, self.q[t.next_obs])
        self.q.move(self.entry(t), error)
        said = self.said(error)
        self.step += t.obs.shape[1]
        return said
