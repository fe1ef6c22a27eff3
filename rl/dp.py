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

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from torch import Tensor
from torch.nn.functional import one_hot

from envs.mdp import TabularMDP
from rl.backup import Backup
from rl.backup import DPError as DPError
from rl.chain import Chain
from rl.homeward import earns, homeward
from rl.rest import rest
from rl.sweeps import Sweeps


@dataclass(frozen=True)
class Solution:
    """Optimal values, and a greedy policy that earns them: of equal actions the first, at gamma 1 see `rl.homeward`."""

    values: Float64[Tensor, "S"]
    q: Float64[Tensor, "S A"]
    policy: Int64[Tensor, "S"]
    iterations: int
    """Sweeps of value iteration, improvements of (truncated) policy iteration, values moved by prioritised sweeping."""
    backups: int
    """How often some q(s, a), or its like under a fixed policy, was computed on the way: work that compares the
    methods. Linear solves come on top."""
    error: float
    """No value is further than this from the truth, rounding aside; at gamma 1 there is no such bound: nan."""

    def ties(self) -> Float64[Tensor, "S A"]:
        """The policy that takes every optimal action equally often."""
        best = ties(self.q)
        return best.double() / best.sum(-1, keepdim=True)


def ties(q: Float64[Tensor, "S A"], tolerance: float = 1e-8) -> Bool[Tensor, "S A"]:
    """The best actions of each state: those within `tolerance` of the best, in units of the state's largest |q|."""
    return q >= q.amax(-1, keepdim=True) - tolerance * q.abs().amax(-1, keepdim=True)


@dataclass(frozen=True)
class HorizonSolution:
    """The optimum with `h` steps to go, for h = 0 ... T; `policy[h - 1]` is what to do with h left."""

    values: Float64[Tensor, "T1 S"]
    policy: Int64[Tensor, "T S"]


def value_iteration(mdp: TabularMDP, gamma: float, tolerance: float = 1e-10, sweeps: int = 100_000) -> Solution:
    """v <- max_a q until v is within `tolerance` of v* (Sutton & Barto sec. 4.4).

    The bound is that of a contraction: |v - v*| <= gamma / (1 - gamma) |change| (Puterman 1994, thm 6.3.1); rounding
    limits it to about 1e-16 |v*| / (1 - gamma). At gamma 1 there is no such bound, and the last change itself is
    brought below `tolerance`. Then it goes on until no value changes by more than `tolerance` of itself, so that a
    value like 0.99^20000 is right too and the greedy policy leads home from there; but no more than S sweeps, in
    which any news comes everywhere.

    At gamma 1 sweeps can end above the optimum where waiting is free and a gain is paid for later: waiting keeps the
    value that the gain had before its price was known. Then no policy earns it, and `solved` mends it.

    Raises:
        DPError: when `sweeps` did not suffice. At gamma 1 that is a world whose optimum is infinite, or one where gains
            and costs alternate in a circle and the sweeps with them (`policy_iteration` does not mind); there too where
            no policy has a finite value everywhere.
    """
    backup = Backup(mdp, gamma)
    v = Sweeps(backup)
    for _ in range(sweeps):
        v.sweep()
        error = v.change if gamma == 1 else v.change * gamma / (1 - gamma)
        if error <= tolerance or v.at_rest():
            break
    else:
        why = (
            "with rewards that recur for ever the values are infinite: take gamma < 1 or finite_horizon"
            if gamma == 1
            else ""
        )
        raise DPError(
            f"value iteration at gamma {gamma!r} still changes by {v.change:.3g} after {sweeps} sweeps {why}".rstrip()
        )
    for _ in range(mdp.states):
        if v.settled(tolerance):
            break
        v.sweep()
    return solved(mdp, backup, gamma, torch.from_numpy(v.values), v.count, v.backups)


def solved(
    mdp: TabularMDP, backup: Backup, gamma: float, reached: Float64[Tensor, "S"], iterations: int, backups: int
) -> Solution:
    """What `reached`, values near the optimum, say after one more backup of all states, and how far off that may be.

    The bound is gamma / (1 - gamma) of what that backup changed (Puterman 1994, thm 6.3.1). At gamma 1 there are other
    fixed points than the optimum. One is at least v* where it is not negative in any state of rest (`rl.rest`; that
    from 0 sweeps never are), and at most v* where a policy earns it. Where this one fails, policy iteration goes on.
    """
    q = backup(reached)
    values, policy = q.amax(-1), _greedy(mdp, q, gamma)
    if gamma == 1 and not (earns(mdp, policy, values) and not _resting_is_better(mdp, values)[0].any()):
        judged = evaluate_exactly(mdp, policy, gamma).isfinite().all()
        found = _improve(mdp, backup, gamma, policy) if judged else policy_iteration(mdp, gamma)
        return replace(found, iterations=iterations, backups=backups + found.backups)
    residual = float((values - reached).abs().max())
    error = math.nan if gamma == 1 else residual * gamma / (1 - gamma)
    return Solution(values=values, q=q, policy=policy, iterations=iterations, backups=backups, error=error)


def policy_iteration(mdp: TabularMDP, gamma: float, epsilon: float = 0.0) -> Solution:
    """Evaluate exactly, act greedily, until nothing improves (Sutton & Barto sec. 4.3); finite and exact.

    At gamma 1 nothing improves only when resting for ever does not either (`rl.rest`). A greedy policy of finite values
    has finite values, or infinite gains: a circle of gains and costs that cancel out ties with the policy that stands
    and never replaces it.

    With `epsilon` the best policy among those that take every action with at least epsilon / A: the greedy action gets
    1 - epsilon + epsilon / A (Sutton & Barto sec. 5.4; Zhao sec. 5.4). The values are then those of that policy.
    It begins at the greedy policy of the uniformly random one, which at gamma 1 ends every episode wherever any does;
    if the random one has no finite value, at one that goes straight to an end or else to a rest.

    Raises:
        DPError: for an epsilon outside 0 ... 1; at gamma 1, for a world whose optimum is infinite or where some state
            leads neither to an end nor to a rest; with epsilon, where random steps never end and rewards recur.
    """
    if not 0 <= epsilon <= 1:
        raise DPError(f"epsilon is {epsilon!r}, expected a chance from 0 to 1")
    backup = Backup(mdp, gamma)
    S, A = mdp.states, mdp.actions
    values = evaluate_exactly(mdp, torch.full((S, A), 1 / A, dtype=torch.float64), gamma)
    if values.isfinite().all():
        found = _improve(mdp, backup, gamma, _greedy(mdp, backup(values), gamma), epsilon)
        return replace(found, backups=found.backups + S * A)
    if epsilon:
        raise DPError(_endless(gamma))
    anything, nothing = torch.ones(S, A, dtype=torch.bool), torch.zeros(S, dtype=torch.float64)
    return _improve(mdp, backup, gamma, homeward(mdp, anything, nothing))


def _improve(
    mdp: TabularMDP, backup: Backup, gamma: float, policy: Int64[Tensor, "S"], epsilon: float = 0.0
) -> Solution:
    """Policy iteration from `policy` on. Raises DPError where it meets a policy without finite values."""
    S, A = mdp.states, mdp.actions
    for iteration in range(1, S * A + 2):
        values = evaluate_exactly(mdp, soft(policy, A, epsilon) if epsilon else policy, gamma)
        if not values.isfinite().all():
            raise DPError(_endless(gamma))
        q = backup(values)
        better = q.amax(-1) > q.gather(-1, policy[:, None])[:, 0] + 1e-12 * (1 + values.abs())
        improved = q.argmax(-1)
        if gamma == 1 and not epsilon and not better.any():  # an end that costs may be worse than none
            better, improved = _resting_is_better(mdp, values)
        if not better.any():
            residual = float((epsilon * q.mean(-1) + (1 - epsilon) * q.amax(-1) - values).abs().max())
            greedy = _greedy(mdp, q, gamma)
            return Solution(
                values=values,
                q=q,
                policy=greedy if gamma < 1 or epsilon or earns(mdp, greedy, values) else policy,
                iterations=iteration,
                backups=iteration * S * A,
                error=math.nan if gamma == 1 else residual / (1 - gamma),
            )
        policy = torch.where(better, improved, policy)
    raise DPError(
        f"policy iteration at gamma {gamma!r} went on after {iteration} improvements: its values are too close"
    )


def _resting_is_better(mdp: TabularMDP, values: Float64[Tensor, "S"]) -> tuple[Bool[Tensor, "S"], Int64[Tensor, "S"]]:
    """Where `values` are below the 0 of a rest that can begin there, and the action that begins it."""
    below = values < -1e-12
    if not below.any():
        return below, torch.zeros(mdp.states, dtype=torch.int64)
    can_rest, action = rest(mdp)
    return can_rest & below, action


def _endless(gamma: float) -> str:
    return (
        f"at gamma {gamma!r} rewards may recur for ever in some states of this world, which have no finite value: "
        "take gamma < 1 or a finite horizon"
    )


def soft(policy: Int64[Tensor, "S"], actions: int, epsilon: float) -> Float64[Tensor, "S A"]:
    """The epsilon-greedy policy around `policy`: its action with 1 - epsilon + epsilon / A, each other epsilon / A."""
    return epsilon / actions + (1 - epsilon) * one_hot(policy, actions).double()


def backward(
    mdp: TabularMDP, gamma: float = 1.0, epsilon: float = 0.0
) -> Iterator[tuple[Float64[Tensor, "S"], Float64[Tensor, "S A"]]]:
    """v and q with 1, 2, 3, ... steps to go, acting as well as can be (Puterman 1994, sec. 4.5).

    With `epsilon` the best is sought among the epsilon-greedy: v = (1 - epsilon) max q + epsilon mean q.
    """
    backup = Backup(mdp, gamma)
    values = torch.zeros(mdp.states, dtype=torch.float64)
    while True:
        q = backup(values)
        values = (1 - epsilon) * q.amax(-1) + epsilon * q.mean(-1) if epsilon else q.amax(-1)
        yield values, q


def finite_horizon(mdp: TabularMDP, horizon: int, gamma: float = 1.0) -> HorizonSolution:
    """The best that can be had in at most `horizon` steps, by backward induction; in memory linear in `horizon`."""
    values, policy = [torch.zeros(mdp.states, dtype=torch.float64)], [torch.empty(0, mdp.states, dtype=torch.int64)]
    for best, q in islice(backward(mdp, gamma), horizon):
        values.append(best)
        policy.append(q.argmax(-1)[None])
    return HorizonSolution(values=torch.stack(values), policy=torch.cat(policy))


def _greedy(mdp: TabularMDP, q: Float64[Tensor, "S A"], gamma: float) -> Int64[Tensor, "S"]:
    """A best action for each state, of equal ones the first; at gamma 1 one that brings the end nearer.

    Undiscounted, an action that only waits (the gambler's stake of 0) is as good as the best, but not for ever.
    """
    return homeward(mdp, ties(q), q.amax(-1)) if gamma == 1 else q.argmax(-1)


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
