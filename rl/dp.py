"""Exact values by dynamic programming: the truth that every agent is measured against.

    r(s, a) = sum_k prob reward                     the expected reward of a pair
    w(s, a, k) = prob [not terminated]              the weight of a successor: a terminated outcome bootstraps nothing
    q(s, a) = r(s, a) + gamma sum_k w v(next)       Bellman's backup; v = max_a q (optimal) or sum_a pi q (of a policy)

S states, A actions, K outcomes of a pair; R policies are evaluated side by side. All in float64 and in memory linear in
S A K (times R): no [S, A, S] anywhere.

Source: Sutton & Barto, Reinforcement Learning, 2nd ed. 2018, ch. 4; Zhao, Mathematical Foundations of Reinforcement
Learning, 2025, ch. 2-4; at gamma 1, Bertsekas & Tsitsiklis, "An analysis of stochastic shortest path problems", 1991.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from envs.mdp import TabularMDP
from rl.chain import Chain

EPS = torch.finfo(torch.float64).eps


class DPError(ValueError):
    """Values that do not exist, or were not reached in the sweeps allowed."""


@dataclass(frozen=True)
class Solution:
    """Optimal values, and a greedy policy (of equal actions the first)."""

    values: Float64[Tensor, "S"]
    q: Float64[Tensor, "S A"]
    policy: Int64[Tensor, "S"]
    iterations: int
    """Sweeps of value iteration, or improvements of policy iteration."""

    def ties(self, tolerance: float = 1e-8) -> Float64[Tensor, "S A"]:
        """The policy that takes every optimal action equally often; within `tolerance` of the best is optimal."""
        best = self.q >= self.values[:, None] - tolerance * (1 + self.values[:, None].abs())
        return best.double() / best.sum(-1, keepdim=True)


@dataclass(frozen=True)
class HorizonSolution:
    """The optimum with `h` steps to go, for h = 0 ... T; `policy[h - 1]` is what to do with h left."""

    values: Float64[Tensor, "T1 S"]
    policy: Int64[Tensor, "T S"]


class Backup:
    """Bellman's backup of one world, its tables laid out once.

    Raises:
        DPError: for a gamma outside 0 ... 1.
    """

    def __init__(self, mdp: TabularMDP, gamma: float) -> None:
        if not 0 <= gamma <= 1:
            raise DPError(f"gamma is {gamma!r}, expected a number from 0 to 1")
        self.reward = mdp.expected_reward()  # [S, A]
        self.weight = gamma * mdp.prob * ~mdp.terminated  # [S, A, K], discounted
        self.next = mdp.next_state.flatten()  # [S A K]

    def __call__(self, values: Float64[Tensor, "S"]) -> Float64[Tensor, "S A"]:
        """q(s, a) when the successors are worth `values`."""
        return self.reward + (self.weight * values.index_select(0, self.next).view_as(self.weight)).sum(-1)


def value_iteration(mdp: TabularMDP, gamma: float, tolerance: float = 1e-10, sweeps: int = 100_000) -> Solution:
    """v <- max_a q until v is within `tolerance` of v* (Sutton & Barto sec. 4.4).

    The bound is that of a contraction: |v - v*| <= gamma / (1 - gamma) |change| (Puterman 1994, thm 6.3.1); rounding
    limits it to about 1e-16 |v*| / (1 - gamma). At gamma 1 there is no such bound, and the last change itself is
    brought below `tolerance`.

    Raises:
        DPError: when `sweeps` did not suffice. At gamma 1 that is a world whose optimum is infinite.
    """
    backup = Backup(mdp, gamma)
    values = torch.zeros(mdp.states, dtype=torch.float64)
    for sweep in range(1, sweeps + 1):
        former, values = values, backup(values).amax(-1)
        change = float((values - former).abs().max())
        error = change if gamma == 1 else change * gamma / (1 - gamma)
        if error <= tolerance or change <= 2 * EPS * float(values.abs().max()):
            q = backup(values)
            return Solution(values=q.amax(-1), q=q, policy=q.argmax(-1), iterations=sweep)
    why = (
        "with rewards that recur for ever the values are infinite: take gamma < 1 or finite_horizon"
        if gamma == 1
        else ""
    )
    raise DPError(
        f"value iteration at gamma {gamma!r} still changes by {change:.3g} after {sweeps} sweeps {why}".rstrip()
    )


def policy_iteration(mdp: TabularMDP, gamma: float) -> Solution:
    """Evaluate exactly, act greedily, until nothing improves (Sutton & Barto sec. 4.3); finite and exact.

    It begins at the greedy policy of the uniformly random one, which at gamma 1 ends every episode wherever any does.

    Raises:
        DPError: at gamma 1, for a world where random steps never end and rewards recur: no policy can be judged.
    """
    backup = Backup(mdp, gamma)
    values = evaluate_exactly(mdp, torch.full((mdp.states, mdp.actions), 1 / mdp.actions, dtype=torch.float64), gamma)
    if not values.isfinite().all():
        raise DPError(f"at gamma {gamma!r} the random policy of this world has no finite value: take gamma < 1")
    policy = backup(values).argmax(-1)
    for iteration in range(1, mdp.states * mdp.actions + 2):
        values = evaluate_exactly(mdp, policy, gamma)
        q = backup(values)
        better = q.amax(-1) > q.gather(-1, policy[:, None])[:, 0] + 1e-12 * (1 + values.abs())
        if not better.any():
            return Solution(values=values, q=q, policy=q.argmax(-1), iterations=iteration)
        policy = torch.where(better, q.argmax(-1), policy)
    raise DPError(
        f"policy iteration at gamma {gamma!r} went on after {iteration} improvements: its values are too close"
    )


def finite_horizon(mdp: TabularMDP, horizon: int, gamma: float = 1.0) -> HorizonSolution:
    """Backward induction: the best that can be had in at most `horizon` steps (Puterman 1994, sec. 4.5)."""
    backup = Backup(mdp, gamma)
    values, policy = [torch.zeros(mdp.states, dtype=torch.float64)], []
    for _ in range(horizon):
        q = backup(values[-1])
        values.append(q.amax(-1))
        policy.append(q.argmax(-1))
    policies = torch.stack(policy) if policy else torch.empty((0, mdp.states), dtype=torch.int64)
    return HorizonSolution(values=torch.stack(values), policy=policies)


def policy_evaluation(
    mdp: TabularMDP, policy: Shaped[Tensor, "*policy"], gamma: float, sweeps: int
) -> Float64[Tensor, "*batch S"]:
    """The value of `policy` in `sweeps` steps, by as many sweeps from zero (Sutton & Barto eq. 4.5).

    It converges to the endless value, and is itself the exact value under a time limit of `sweeps` steps.
    `policy` as in `evaluate_exactly`.
    """
    chain = Chain.of(mdp, policy)
    values = torch.zeros_like(chain.reward)
    for _ in range(sweeps):
        values = chain.backup(values, gamma)
    return values.view(*chain.batch, mdp.states)


def evaluate_exactly(mdp: TabularMDP, policy: Shaped[Tensor, "*policy"], gamma: float) -> Float64[Tensor, "*batch S"]:
    """The endless value of a policy, or of R policies side by side, by one sparse linear solve (Sutton & Barto 4.4).

    Args:
        mdp: the world.
        policy: an action for each state, Int64 `[S]` or `[R, S]`, or probabilities, Float64 `[S, A]` or `[R, S, A]`.
        gamma: the discount. At 1 the total reward may be no number: it is -inf (inf) in the states that can
            fall into a loop that costs (pays) for ever, nan where both can happen or where gains and costs alternate
            for ever; a loop without rewards is worth 0. See `policy_evaluation` for the value under a time limit.

    Raises:
        DPError: for a gamma outside 0 ... 1, or a policy of another shape.
    """
    if not 0 <= gamma <= 1:
        raise DPError(f"gamma is {gamma!r}, expected a number from 0 to 1")
    chain = Chain.of(mdp, policy)
    return chain.values(gamma).view(*chain.batch, mdp.states)
