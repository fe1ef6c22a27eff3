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


def epsilon_greedy(
    q: Float[Tensor, "R W A"], epsilon: float, key: Int64[Tensor, "R W"], step: int
) -> Int64[Tensor, "R W"]:
    """The best action (of equals the first); with probability epsilon any, uniformly.

    World (r, w) draws its coin and its action from its own key at `step`.
    """
    A = q.shape[-1]
    greedy = q.argmax(-1)
    if epsilon <= 0:
        return greedy
    chance = (streams.uniform(key, 2 * step) * A).long()  # 24 bits below 1 times A stays below A in float32
    return torch.where(streams.uniform(key, 2 * step + 1) < epsilon, chance, greedy)


def linear(start: float, end: float, over: int, step: int) -> float:
    """From `start` at step 0 in a straight line to `end` at step `over`, and on at `end`."""
    return end if step >= over else start + (end - start) * step / over
