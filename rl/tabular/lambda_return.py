"""The offline lambda-return algorithm: nothing is learnt during an episode, and at its end a sequence of updates.

    v(S_t) <- v(S_t) + alpha [G_t^lambda - v(S_t)]        t = 0, 1, ... T - 1

lambda 1 is every-visit Monte Carlo, lambda 0 TD(0) held back until the episode's end.

Source: Sutton & Barto 2018, sec. 12.1, eq. 12.2 to 12.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from rl import state
from rl.returns import lambda_returns
from rl.tabular.prediction import Prediction
from rl.types import Transition

SHORTEST = 16  # steps for which there is room at first


class Episodes:
    """The running episode of every world; there is room for the longest so far, twice as much each time."""

    STATE = ("obs", "next_obs", "reward", "discount", "length")

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.obs, self.next_obs, self.length = (torch.zeros(0, dtype=torch.int64, device=device) for _ in range(3))
        self.reward, self.discount = (torch.zeros(0, dtype=torch.float64, device=device) for _ in range(2))

    def add(self, t: Transition, discount: Float64[Tensor, "R W"]) -> None:
        """One step of every world: [R, W, L] each, `length` [R, W] of them filled."""
        if not self.length.numel():
            self.length = torch.zeros_like(t.obs)
            self._grow(t.obs.shape, SHORTEST)
        elif self.obs.shape[-1] == int(self.length.max()):
            self._grow(t.obs.shape, self.obs.shape[-1])
        at = self.length.unsqueeze(-1)
        for name, now in (
            ("obs", t.obs),
            ("next_obs", t.next_obs),
            ("reward", t.reward.double()),
            ("discount", discount),
        ):
            getattr(self, name).scatter_(-1, at, now.unsqueeze(-1))
        self.length += 1

    def _grow(self, shape: torch.Size, more: int) -> None:
        for name in ("obs", "next_obs", "reward", "discount"):
            kept = getattr(self, name)
            setattr(self, name, torch.cat([kept.view(*shape, -1), kept.new_zeros(*shape, more)], -1))

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, self.STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        for name in self.STATE:  # as long as those of the run that was saved
            setattr(self, name, saved[name].to(self.length.device, copy=True))


class OfflineLambdaReturn(Prediction):
    """The offline lambda-return algorithm of R replicas (see `rl.tabular.prediction.Prediction`).

    The returns of an episode are all of the values as they stood at its end; v(S_t) moves on within the sequence, as
    eq. 12.4 has it. Episodes that are over at once are learnt from one after another. An episode cut by a time limit is
    learnt from when it is cut; the value of the state in which it was cut stands for the rest of every return.

    Args:
        lam: lambda, in [0, 1].
    """

    STATE = (*Prediction.STATE, "episodes")

    def __init__(
        self, target_policy: Float64[Tensor, "S A"], seeds: Sequence[int], *, lam: float, **table: Any
    ) -> None:
        super().__init__(target_policy, seeds, **table)
        self.lam = lam
        self.episodes = Episodes(self.device)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t = transition
        self.episodes.add(t, self.discount(t))
        total = torch.zeros(self.replicas, dtype=torch.float64, device=self.device)
        for w in t.last.any(0).nonzero().squeeze(1).tolist():
            total += self._learn(t.last & (torch.arange(t.last.shape[1], device=self.device) == w))
        steps = (self.episodes.length * t.last).sum(1).clamp(min=1)
        self.episodes.length *= ~t.last
        self.step += t.obs.shape[1]
        return {"td_error": total / steps}

    def _learn(self, over: Bool[Tensor, "R W"]) -> Float64[Tensor, "R"]:
        """Learn from the episodes that are over; the absolute errors of their steps, summed."""
        kept, steps = self.episodes, int((self.episodes.length * over).max())
        time, length = torch.arange(steps, device=self.device), kept.length.unsqueeze(-1)  # [L], [R, W, 1]
        v = self.v[kept.next_obs[..., :steps].flatten(1)].view(*over.shape, steps)
        reward, discount = kept.reward[..., :steps], kept.discount[..., :steps]
        target = lambda_returns(reward, discount, v, time == length - 1, self.lam)
        total = torch.zeros_like(target[:, 0, 0])
        for k in range(steps):
            when = over & (k < kept.length)
            error = target[..., k] - self.v[kept.obs[..., k]]
            self.v.move(kept.obs[..., k], error, when)
            total += (error * when).abs().sum(1)
        return total
