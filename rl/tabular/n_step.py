"""n-step Sarsa: n rewards, and then what the pair that follows is thought to be worth.

    q(S_t, A_t) <- q(S_t, A_t) + alpha [G_(t:t+n) - q(S_t, A_t)]

    n-step Sarsa             G = R_(t+1) + ... + gamma^(n-1) R_(t+n) + gamma^n q(S_(t+n), A_(t+n))
    n-step Expected Sarsa    G =                     ...             + gamma^n sum_a pi(a | S_(t+n)) q(S_(t+n), a)

Both are on-policy: pi is the epsilon-greedy policy that acts. n = 1 gives Sarsa and Expected Sarsa.

Source: Sutton & Barto 2018, sec. 7.2: eq. 7.4, 7.5, its box, eq. 7.7.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool, Float, Float64
from torch import Tensor

from rl import td
from rl.tabular.control import Control
from rl.tabular.waiting import Waiting, mean, tally
from rl.types import Transition


class NStepControl(Control):
    """What n-step learners of action values share; `rl.tabular.control` says the rest.

    Where an episode is over, what still waits is learnt about at once, the oldest first, as the box has it. The box
    knows no time limit: here what is cut bootstraps from the state in which it was cut, with the expectation under the
    acting policy, as no action was taken there.

    Args:
        n: steps before bootstrapping.
    """

    STATE = (*Control.STATE, "waiting")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], *, n: int, **control: Any) -> None:
        super().__init__(states, actions, seeds, **control)
        self.waiting = Waiting(n, self.device)

    @abstractmethod
    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn about the steps that are n steps ago, and about all where an episode is over."""

    def expected(self, t: Transition) -> Float64[Tensor, "R W"]:
        """What the true successor is worth under the acting policy."""
        q = self.q[t.next_obs]
        return (self.explorer.odds(q, self.step) * q).sum(-1)

    def add(self, t: Transition) -> None:
        """The step at hand waits."""
        entry = self.entry(t)
        self.waiting.add(entry, t.reward.double(), self.gamma * t.discount.double(), self.q.visit(entry))

    def learn(self, v_t: Float64[Tensor, "R W"], when: Bool[Tensor, "R W"]) -> Float64[Tensor, "2 R"]:
        """Correct the oldest pair that waits, bootstrapping from `v_t`, where it is time."""
        pair, reward, discount, share = self.waiting.oldest()
        error = td.td_learning(self.q.value.flatten(1).gather(1, pair), reward, discount, v_t)
        self.q.correct(pair, error, when, share)
        self.waiting.drop(when)
        return tally(error, when)

    def finish(self, t: Transition, learnt: Float64[Tensor, "2 R"]) -> dict[str, Float[Tensor, "R"]]:
        """Learn about all that waits where the episode is over; what is logged of the turn."""
        for when in self.waiting.due(t.last):
            learnt = learnt + self.learn(self.expected(t), when)
        said = self.said(mean(learnt).unsqueeze(1))
        self.step += t.obs.shape[1]
        return said


class NStepSarsa(NStepControl):
    """n-step Sarsa. The pair that follows is known one turn later, so it is then that a step is learnt about.

    So does the box: it chooses A_(t+1) before it corrects the pair of n steps ago.
    """

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t, waiting = transition, self.waiting
        waiting.open(*t.obs.shape)
        learnt = self.learn(td.of(self.q[t.obs], t.action), waiting.full())
        self.add(t)
        return self.finish(t, learnt)


class NStepExpectedSarsa(NStepControl):
    """n-step Expected Sarsa, which need not wait for the next action."""

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t, waiting = transition, self.waiting
        waiting.open(*t.obs.shape)
        self.add(t)
        return self.finish(t, self.learn(self.expected(t), waiting.full()))
