"""Exploration: chance actions, each world with a coin of its own.

Source: Sutton & Barto 2018, sec. 2.2 (epsilon-greedy); Mnih et al. 2015, Methods (its linear decay).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lab import streams


def stream_keys(seeds: Sequence[int], name: str) -> Int64[Tensor, "R"]:
    """The key of the stream `name` below each seed."""
    return torch.tensor([streams.derive(seed, name) for seed in seeds], dtype=torch.int64)


def world_keys(key: Int64[Tensor, "R"], worlds: int) -> Int64[Tensor, "R W"]:
    """A key for each world of each replica, from the replica's alone; key [r, w] is the same whatever R and W are."""
    return streams.bits(key[:, None], torch.arange(worlds, device=key.device))


def best_at_random(q: Float[Tensor, "R W A"], chance: Float[Tensor, "R W"]) -> Int64[Tensor, "R W"]:
    """The best action, of equals the one that `chance` in [0, 1) picks: what a table of equal numbers needs."""
    best = q == q.amax(-1, keepdim=True)
    pick = (chance * best.sum(-1)).long()  # 0 ... equals - 1
    return (best.cumsum(-1) > pick[..., None]).long().argmax(-1)


def greedy_odds(q: Float[Tensor, "*b A"], epsilon: float) -> Float[Tensor, "*b A"]:
    """The epsilon-greedy policy's probabilities, equals sharing what the best has."""
    best = (q == q.amax(-1, keepdim=True)).to(q.dtype)
    return epsilon / q.shape[-1] + (1 - epsilon) * best / best.sum(-1, keepdim=True)


class EpsilonGreedy:
    """Epsilon-greedy actions of R replicas; of equal values one at random.

    Args:
        seeds: one for each replica; its worlds' coins are from it alone.
        epsilon: (start, end) of the chance of a random action, linear over `steps` steps of each replica.
    """

    def __init__(
        self, seeds: Sequence[int], epsilon: tuple[float, float], steps: int, device: torch.device | str = "cpu"
    ) -> None:
        self.key = stream_keys(seeds, "explore").to(device)
        self.range, self.steps = epsilon, steps

    def epsilon(self, step: int) -> float:
        """The chance of a random action at `step`."""
        return linear(*self.range, self.steps, step)

    def act(self, q: Float[Tensor, "R W A"], step: int) -> Int64[Tensor, "R W"]:
        """An action for each world; world (r, w) draws from its own key at `step`."""
        key, A = world_keys(self.key, q.shape[1]), q.shape[-1]
        chance = streams.uniform(key, 2 * step)
        explores = streams.uniform(key, 2 * step + 1) < self.epsilon(step)
        return torch.where(explores, (chance * A).long(), best_at_random(q, chance))

    def odds(self, q: Float[Tensor, "*b A"], step: int) -> Float[Tensor, "*b A"]:
        """The probability of each action in `act` at `step`."""
        return greedy_odds(q, self.epsilon(step))


def sample(odds: Float[Tensor, "*b A"], chance: Float[Tensor, "*b"]) -> Int64[Tensor, "*b"]:
    """The action that `chance` in [0, 1) picks from probabilities; one of probability 0 never."""
    total = odds.double().cumsum(-1)  # where 24 bits of chance times the sum stay below the sum
    return (total <= (chance * total[..., -1]).unsqueeze(-1)).sum(-1)


def linear(start: float, end: float, over: int, step: int) -> float:
    """From `start` at step 0 in a straight line to `end` at step `over`, and on at `end`."""
    return end if step >= over else start + (end - start) * step / over
