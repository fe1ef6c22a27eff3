"""n-step tree backup: n steps of off-policy learning without importance sampling.

    G_(t:t+n) = R_(t+1) + gamma sum_(a != A_(t+1)) pi(a | S_(t+1)) q(S_(t+1), a)
                        + gamma pi(A_(t+1) | S_(t+1)) G_(t+1:t+n),          G_(T-1:t+n) = R_T               (eq. 7.16)

    q(S_t, A_t) <- q(S_t, A_t) + alpha [G_(t:t+n) - q(S_t, A_t)]

Of the action that was taken the tree takes what followed; of the others, what they are thought to be worth. pi is any
policy, whatever acts; here it is greedy, equals sharing, so q goes to q*. Written as a sum of one-step errors

    G_(t:t+n) - q(S_t, A_t) = delta_t + gamma pi(A_(t+1) | S_(t+1)) [delta_(t+1) + gamma pi(A_(t+2) | S_(t+2)) [...]]
    delta_k = R_(k+1) + gamma sum_a pi(a | S_(k+1)) q(S_(k+1), a) - q(S_k, A_k)        (exercise 7.11)

n = 1 is Q-learning.

Source: Sutton & Barto 2018, sec. 7.5 and its box; Precup, Sutton & Singh, ICML 2000, sec. 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from rl import td
from rl.explore import greedy_odds
from rl.returns import lambda_returns
from rl.tabular.control import Control
from rl.tabular.waiting import mean, tally
from rl.types import Transition


class TreeBackup(Control):
    """n-step tree backup for the greedy policy; `rl.tabular.control` says the rest.

    Every value in a target is that of the moment, as the box has it. Where an episode is over, what still waits is
    learnt about at once, the oldest first. The box knows no time limit: here the last of a cut episode's steps
    bootstraps like any other, from the state in which it was cut.

    Args:
        n: steps that the tree is deep.

    Raises:
        ValueError: for n below 1.
    """

    STATE = (*Control.STATE, "obs", "action", "reward", "discount", "share", "count")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], *, n: int, **control: Any) -> None:
        if n < 1:
            raise ValueError(f"tree backup with n = {n}, expected 1 or more")
        super().__init__(states, actions, seeds, **control)
        self.n = n
        # The last n steps, the newest last, [R, W, n] from the first step on; `count` [R, W] of them wait.
        self.obs, self.action, self.count = (torch.zeros(0, dtype=torch.int64, device=self.device) for _ in range(3))
        self.reward, self.discount, self.share = (
            torch.zeros(0, dtype=torch.float64, device=self.device) for _ in range(3)
        )

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t = transition
        self._add(t)
        learnt = self._learn(t, self.count == self.n)
        for _ in range(int((self.count * t.last).max()) if t.last.device.type == "cpu" else self.n):
            learnt = learnt + self._learn(t, t.last & (self.count > 0))
        said = self.said(mean(learnt).unsqueeze(1))
        self.step += t.obs.shape[1]
        return said

    def _add(self, t: Transition) -> None:
        if not self.count.numel():
            self.count = torch.zeros_like(t.obs)
            for name in ("obs", "action", "reward", "discount", "share"):
                setattr(self, name, getattr(self, name).new_zeros(*t.obs.shape, self.n))
        now = {
            "obs": t.obs,
            "action": t.action,
            "reward": t.reward,
            "discount": self.gamma * t.discount.double(),
            "share": self.q.visit(self.entry(t)),
        }
        for name, new in now.items():
            past = getattr(self, name)
            setattr(self, name, torch.cat([past[..., 1:], new.unsqueeze(-1).to(past.dtype)], -1))
        self.count += 1

    def _learn(self, t: Transition, when: Bool[Tensor, "R W"]) -> Float64[Tensor, "2 R"]:
        """Correct the oldest pair that waits, where it is time."""
        first = (self.n - self.count).clamp(max=self.n - 1).unsqueeze(-1)  # [R, W, 1]
        error = self._errors(t).gather(-1, first).squeeze(-1)
        pair = (self.obs * self.actions + self.action).gather(-1, first).squeeze(-1)
        self.q.correct(pair, error, when, self.share.gather(-1, first).squeeze(-1))
        self.count -= when.long()
        return tally(error, when)

    def _errors(self, t: Transition) -> Float64[Tensor, "R W n"]:
        """G - q of each step, of a tree from there to the present; anything for steps before the oldest that waits."""
        R, W = t.obs.shape
        states = torch.cat([self.obs, t.next_obs.unsqueeze(-1)], -1)  # [R, W, n + 1]
        q = self.q[states.flatten(1)].view(R, W, self.n + 1, self.actions)
        pi = greedy_odds(q, 0.0)
        delta = td.expected_sarsa(q[:, :, :-1], self.action, self.reward, self.discount, q[:, :, 1:], pi[:, :, 1:])
        taken = td.of(pi[:, :, 1:-1], self.action[..., 1:])  # [R, W, n - 1], how pi would have done the same
        follow = self.discount * torch.cat([taken, taken.new_zeros(R, W, 1)], -1)
        nothing = torch.zeros_like(delta)
        return lambda_returns(delta, follow, nothing, torch.zeros_like(delta).bool(), 1.0)
