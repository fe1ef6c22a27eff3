"""Temporal differences: the errors that value learners reduce, and tabular Q-learning.

    q_tm1 [..., A]      action values before the step         a_tm1 [...]   the action taken
    r_t, discount_t     reward, and discount (gamma, or 0 where the world ended; a time limit is no end)
    q_t [..., A]        action values after it

Arguments stand in the order of rlax (DeepMind), and every function takes any leading dimensions and returns one error
for each. Targets are constants: no gradient flows into them.

Source: Watkins & Dayan, "Q-learning", Machine Learning 1992; Sutton & Barto 2018, eq. 6.8; Zhao 2025, sec. 7.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rl.explore import epsilon_greedy, linear, stream_keys, world_keys
from rl.types import Transition


def q_learning(
    q_tm1: Float[Tensor, "*b A"],
    a_tm1: Int64[Tensor, "*b"],
    r_t: Float[Tensor, "*b"],
    discount_t: Float[Tensor, "*b"],
    q_t: Float[Tensor, "*b A"],
) -> Float[Tensor, "*b"]:
    """r + discount max_a q_t - q_tm1(a): Watkins & Dayan 1992, eq. 1; Sutton & Barto eq. 6.8."""
    target = r_t + discount_t * q_t.amax(-1)
    return target.detach() - q_tm1.gather(-1, a_tm1.unsqueeze(-1)).squeeze(-1)


def double_q_learning(
    q_tm1: Float[Tensor, "*b A"],
    a_tm1: Int64[Tensor, "*b"],
    r_t: Float[Tensor, "*b"],
    discount_t: Float[Tensor, "*b"],
    q_t_value: Float[Tensor, "*b A"],
    q_t_selector: Float[Tensor, "*b A"],
) -> Float[Tensor, "*b"]:
    """r + discount q_t_value(argmax_a q_t_selector) - q_tm1(a): one judges the action that another chose.

    Source: van Hasselt, Guez & Silver, "Deep reinforcement learning with double Q-learning", AAAI 2016, eq. 4.
    """
    chosen = q_t_selector.argmax(-1, keepdim=True)
    target = r_t + discount_t * q_t_value.gather(-1, chosen).squeeze(-1)
    return target.detach() - q_tm1.gather(-1, a_tm1.unsqueeze(-1)).squeeze(-1)


class QLearning:
    """Q-learning on a table, R replicas `[R, S, A]` in one call; observations are state indices.

    The n-th update of a pair has the step size `alpha / n^omega`. Omega in (1/2, 1] satisfies Robbins & Monro (1951)
    and converges with probability 1 to q*; polynomial rates (omega < 1) do so in a time polynomial in 1 / (1 - gamma),
    where omega = 1 needs an exponential one (Even-Dar & Mansour, JMLR 2003). Omega 0 is a constant step size: right
    where the world is deterministic.

    When several worlds of a replica take the same pair in one call, it is updated once, by the mean of their errors.

    Args:
        states, actions: S and A.
        seeds: one for each replica; all that replica r draws is from seeds[r].
        gamma: discount.
        alpha, omega: the step sizes.
        epsilon: (start, end) of the chance of a random action, linear over `epsilon_steps` steps of each replica.
        device: where the table lies.
    """

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
        device: torch.device | str = "cpu",
    ) -> None:
        self.replicas, self.device = len(seeds), torch.device(device)
        self.gamma, self.alpha, self.omega = gamma, alpha, omega
        self.epsilon_range, self.epsilon_steps = epsilon, epsilon_steps
        self.key = stream_keys(seeds, "explore").to(device)
        self.q = torch.zeros(self.replicas, states, actions, dtype=torch.float64, device=device)
        self.updates = torch.zeros(self.replicas, states, actions, dtype=torch.int64, device=device)
        self.step = 0  # steps of each replica learnt from
        self._row = torch.arange(self.replicas, device=device)[:, None]

    @property
    def epsilon(self) -> float:
        """The chance of a random action at this step."""
        return linear(*self.epsilon_range, self.epsilon_steps, self.step)

    def act(self, obs: Int64[Tensor, "R W"], explore: bool) -> Int64[Tensor, "R W"]:
        return epsilon_greedy(
            self.q[self._row, obs], self.epsilon if explore else 0.0, world_keys(self.key, obs.shape[1]), self.step
        )

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Returns `td_error`: the mean absolute error, and `epsilon`."""
        t = transition
        pair = (self._row, t.obs, t.action)
        discount = self.gamma * t.discount.double()
        error = q_learning(
            self.q[self._row, t.obs], t.action, t.reward.double(), discount, self.q[self._row, t.next_obs]
        )  # [R, W]
        mean = _mean_of_equals(error, t.obs * self.q.shape[-1] + t.action)
        n = self.updates[pair] + 1
        self.updates[pair] = n  # worlds that share a pair write the same number
        self.q[pair] += self.alpha * n.double() ** -self.omega * mean
        epsilon = torch.full((self.replicas,), self.epsilon, device=self.q.device)
        self.step += t.obs.shape[1]
        return {"td_error": error.abs().mean(1), "epsilon": epsilon}

    def q_values(self, obs: Int64[Tensor, "*batch"]) -> Float[Tensor, "R M A"]:
        return self.q[self._row, obs.expand(self.replicas, obs.shape[-1])]

    def state_dict(self) -> dict[str, Any]:
        return {"q": self.q.clone(), "updates": self.updates.clone(), "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.q.copy_(state["q"])
        self.updates.copy_(state["updates"])
        self.step = state["step"]


def _mean_of_equals(value: Float[Tensor, "R W"], label: Int64[Tensor, "R W"]) -> Float[Tensor, "R W"]:
    """At (r, w) the mean of value[r] over the worlds whose label equals that of w: the same number in each of them."""
    if value.shape[1] == 1:
        return value
    same = (label[:, :, None] == label[:, None, :]).to(value.dtype)  # [R, W, W]
    return (same @ value.unsqueeze(-1)).squeeze(-1) / same.sum(-1)
