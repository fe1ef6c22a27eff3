"""Expected Sarsa: on-policy, for its target is the mean over what the policy may do next.

    q(s, a) <- q(s, a) + alpha [r + gamma sum_a' pi(a' | s') q(s', a') - q(s, a)],    pi epsilon-greedy in q

The expectation needs no next action: it learns from each step at once, and a time limit needs no rule of its own. Of
equally good actions each has an equal share of pi.

Source: van Seijen, van Hasselt, Whiteson & Wiering, "A theoretical and empirical analysis of Expected Sarsa", ADPRL
2009; Sutton & Barto 2018, sec. 6.6, eq. 6.9.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from rl import td
from rl.tabular.control import Control
from rl.types import Transition


class ExpectedSarsa(Control):
    """Expected Sarsa; `rl.tabular.control` says what it is made of."""

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t = transition
        after = self.q[t.next_obs]
        odds = self.explorer.odds(after, self.step)
        discount = self.gamma * t.discount.double()
        error = td.expected_sarsa(self.q[t.obs], t.action, t.reward.double(), discount, after, odds)
        self.q.move(self.entry(t), error)
        said = self.said(error)
        self.step += t.obs.shape[1]
        return said
