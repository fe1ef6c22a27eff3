"""What a policy makes of a world: a Markov reward process, and its exact value.

    v = r + gamma P v,   so   (I - gamma P) v = r        (Sutton & Barto 2018, eq. 4.4; Zhao 2025, eq. 2.7)

P [n, n] holds J successors a row, with weights that sum to less than 1 where the world may end. R policies are
one chain of n = R S states in R blocks that never meet, so one sparse solve evaluates them all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy import sparse  # type: ignore[import-untyped]  # scipy ships no types
from scipy.sparse import linalg  # type: ignore[import-untyped]  # likewise
from torch import Tensor

from envs.mdp import TabularMDP
from rl.graph import reachable, recurrent

Floats = np.ndarray[Any, np.dtype[np.float64]]


class PolicyError(ValueError):
    """A policy that does not fit its world."""


@dataclass(frozen=True)
class Chain:
    """n = R S states, J successors each."""

    batch: tuple[int, ...]
    """() for one policy, (R,) for R."""
    reward: Float64[Tensor, "n"]
    next: Int64[Tensor, "n J"]
    weight: Float64[Tensor, "n J"]
    """Probability of that successor without the world ending."""
    ends: Bool[Tensor, "n"]
    """The world may end on leaving this state."""

    @staticmethod
    def of(mdp: TabularMDP, policy: Shaped[Tensor, "*policy"]) -> Chain:
        """The chain of `policy`: Int64 `[S]` or `[R, S]`, or probabilities Float64 `[S, A]` or `[R, S, A]`.

        Raises:
            PolicyError: for another shape, or actions outside 0 ... A-1.
        """
        S, A, K = mdp.next_state.shape
        shape: tuple[int, ...]
        if policy.is_floating_point():
            shape, each, wrong = (S, A), A, policy < 0
        else:
            shape, each, wrong = (S,), 1, (policy < 0) | (policy >= A)
        batch = tuple(policy.shape[: policy.ndim - len(shape)])
        if tuple(policy.shape[len(batch) :]) != shape or len(batch) > 1 or bool(wrong.any()):
            found = f"{list(policy.shape)} with values from {policy.min():.6g} to {policy.max():.6g}"
            raise PolicyError(f"the policy is {found}, expected [S] = [{S}] actions below {A} or [S, A] probabilities")
        state = torch.arange(S).expand(*batch, S)
        if policy.is_floating_point():
            action, share = torch.arange(A).expand(*policy.shape), policy.double()
        else:
            action, share = policy.unsqueeze(-1).cpu(), torch.ones(1, dtype=torch.float64)
        pair = state.unsqueeze(-1) * A + action  # [(R,) S, each], rows of the tables
        prob = share.cpu().unsqueeze(-1) * mdp.prob.view(S * A, K)[pair]  # [(R,) S, each, K]
        stop = mdp.terminated.view(S * A, K)[pair]
        block = S * torch.arange(batch[0] if batch else 1).view(*batch, 1, 1, 1)  # each policy's own copy of the states
        n = state.numel()
        return Chain(
            batch=batch,
            reward=(share.cpu() * mdp.expected_reward().view(-1)[pair]).sum(-1).view(n),
            next=(block + mdp.next_state.view(S * A, K)[pair]).view(n, each * K),
            weight=(prob * ~stop).view(n, each * K),
            ends=((prob > 0) & stop).view(n, -1).any(-1),
        )

    def backup(self, values: Float64[Tensor, "n"], gamma: float) -> Float64[Tensor, "n"]:
        """r + gamma P v."""
        return self.reward + gamma * (self.weight * values[self.next]).sum(-1)

    @property
    def matrix(self) -> Any:
        """P, sparse [n, n]."""
        n, J = self.next.shape
        edges = (self.weight.flatten().numpy(), self.next.flatten().numpy(), np.arange(n + 1) * J)
        P = sparse.csr_matrix(edges, shape=(n, n))
        P.sum_duplicates()
        P.eliminate_zeros()
        return P

    def values(self, gamma: float) -> Float64[Tensor, "n"]:
        """The solution of v = r + gamma P v; at gamma 1 with infinities as `rl.dp.evaluate_exactly` tells."""
        P, r = self.matrix, self.reward.numpy()
        if gamma < 1:
            return torch.from_numpy(solve(P * gamma, r))
        rest = recurrent(P, self.ends.numpy())  # for ever in a loop
        gains, costs = reachable(P.T, rest & (r > 0)), reachable(P.T, rest & (r < 0))
        moving = ~(rest | gains | costs)  # states whose total is finite and not simply 0
        v = solve(sparse.diags(moving.astype(np.float64)) @ P, np.where(moving, r, 0.0))
        v[gains], v[costs], v[gains & costs] = np.inf, -np.inf, np.nan
        return torch.from_numpy(v)

    def visits(self, first: Float64[Tensor, "n"], gamma: float) -> Float64[Tensor, "n"]:
        """The solution of d = first + gamma P^T d: how often each state is acted in, from first states drawn so.

        At gamma 1 it is inf in the states that are returned to for ever.
        """
        P = self.matrix
        at = np.flatnonzero(reachable(P, (first > 0).numpy()))  # all others are never visited
        P = P[at][:, at]
        rest = recurrent(P, self.ends.numpy()[at]) if gamma == 1 else np.zeros(len(at), np.bool_)
        moving = sparse.diags((~rest).astype(np.float64))
        d = np.zeros(len(first))
        d[at] = np.where(rest, np.inf, solve(gamma * (moving @ P @ moving).T, first.numpy()[at]))
        return torch.from_numpy(d)


def solve(P: Any, r: Floats) -> Floats:
    """v = r + P v. The system is an M-matrix, so SuperLU needs no pivots to stay exact."""
    v: Floats = np.atleast_1d(linalg.spsolve(sparse.identity(len(r), format="csc") - P.tocsc(), r))
    return v
