"""A world is a table: the explicit Markov decision process that planners and simulators share.

S counts the states, A the actions and K the outcomes of a state-action pair (Sutton & Barto 2018, eq. 3.2, with
the sum over successors and rewards written out as K rows):

    next_state[s, a, k], reward[s, a, k], terminated[s, a, k]    happen with probability    prob[s, a, k]

A pair with fewer than K outcomes repeats its last one with probability 0. A terminated outcome bootstraps nothing,
whatever its next_state. The discount belongs to the algorithm, not to the world. Memory is linear in S A K: nothing
here is ever [S, A, S].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int32
from torch import Tensor

TOLERANCE = 1e-9  # of a sum of probabilities


class MDPError(ValueError):
    """A table that is no MDP; the message names the state, the action and the value."""


@dataclass(frozen=True, eq=False)
class TabularMDP:
    """The dynamics of a finite world, on the CPU.

    Raises:
        MDPError: for wrong shapes or dtypes, probabilities that are negative or do not sum to 1 (to 1e-9), successors
            outside 0 ... S-1, rewards that are not finite.
    """

    next_state: Int32[Tensor, "S A K"]
    prob: Float64[Tensor, "S A K"]
    reward: Float64[Tensor, "S A K"]
    terminated: Bool[Tensor, "S A K"]
    start: Float64[Tensor, "S"]
    """Probability of each state to be the first of an episode."""

    def __post_init__(self) -> None:
        _check_form(self)
        _refuse(self.prob, ~(self.prob >= 0), "prob", "a probability, at least 0")
        _refuse(self.start, ~(self.start >= 0), "start", "a probability, at least 0")
        total = self.prob.sum(-1)  # [S, A]
        _refuse(total, ~((total - 1).abs() <= TOLERANCE), "sum of prob", "1")
        if not abs(float(self.start.sum()) - 1) <= TOLERANCE:
            raise MDPError(f"start sums to {float(self.start.sum())!r}, expected 1")
        outside = (self.next_state < 0) | (self.next_state >= self.states)
        _refuse(self.next_state, outside, "next_state", f"a state, 0 to {self.states - 1}")
        _refuse(self.reward, ~self.reward.isfinite(), "reward", "a finite number")

    @property
    def states(self) -> int:
        """S."""
        return self.next_state.shape[0]

    @property
    def actions(self) -> int:
        """A."""
        return self.next_state.shape[1]

    @property
    def outcomes(self) -> int:
        """K, the largest number of outcomes of any state-action pair."""
        return self.next_state.shape[2]

    def expected_reward(self) -> Float64[Tensor, "S A"]:
        """r(s, a) = sum over k of prob reward (Sutton & Barto 2018, eq. 3.5)."""
        return (self.prob * self.reward).sum(-1)

    def lived(self) -> Bool[Tensor, "S"]:
        """States in which something is decided: an episode begins there, or enters and goes on."""
        own = torch.arange(self.states).view(-1, 1, 1)
        lived = self.start > 0
        lived[self.next_state[(self.prob > 0) & ~self.terminated & (self.next_state != own)].long()] = True
        return lived


def _check_form(mdp: TabularMDP) -> None:
    """Raise MDPError unless every table has its dtype and the shape that next_state and each other give it."""
    if mdp.next_state.ndim != 3 or mdp.next_state.numel() == 0:
        raise MDPError(f"next_state has shape {tuple(mdp.next_state.shape)}, expected [S, A, K], each at least 1")
    full = tuple(mdp.next_state.shape)
    form = {
        "next_state": (torch.int32, full),
        "prob": (torch.float64, full),
        "reward": (torch.float64, full),
        "terminated": (torch.bool, full),
        "start": (torch.float64, full[:1]),
    }
    for name, (dtype, shape) in form.items():
        table: Tensor = getattr(mdp, name)
        if table.dtype != dtype or tuple(table.shape) != shape:
            raise MDPError(f"{name} is {table.dtype} {list(table.shape)}, expected {dtype} {list(shape)}")


def _refuse(table: Tensor, wrong: Tensor, name: str, expected: str) -> None:
    """Raise MDPError for the first entry of `table` that is `wrong`."""
    if wrong.any():
        index = tuple(wrong.nonzero()[0].tolist())
        where = ", ".join(f"{axis} {i}" for axis, i in zip(("state", "action", "outcome"), index, strict=False))
        raise MDPError(f"{name} of {where} is {table[index].item()!r}, expected {expected}")
