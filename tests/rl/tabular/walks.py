"""Random experience of R replicas x W worlds: what to feed a learner and a plain loop over numbers alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from rl.types import Transition


@dataclass(frozen=True)
class Walk:
    """T steps of [T, R, W] each; episodes end, by the world or by a time limit, at random."""

    s: np.ndarray
    a: np.ndarray
    r: np.ndarray
    after: np.ndarray
    ended: np.ndarray
    last: np.ndarray

    def transitions(self) -> list[Transition]:
        R, W = self.s.shape[1:]
        return [
            Transition(
                obs=torch.from_numpy(self.s[t]),
                memory=torch.zeros(R, W, 0),
                action=torch.from_numpy(self.a[t]),
                reward=torch.from_numpy(self.r[t]),
                next_obs=torch.from_numpy(self.after[t]),
                discount=torch.from_numpy(1 - self.ended[t].astype(np.float32)),
                last=torch.from_numpy(self.last[t]),
            )
            for t in range(len(self.s))
        ]

    def episodes(self, r: int, w: int) -> list[list[tuple[int, int, float, int, bool]]]:
        """World w of replica r: a list of (s, a, reward, successor, ended) for each episode, the unfinished one too."""
        found: list[list[tuple[int, int, float, int, bool]]] = [[]]
        for t in range(len(self.s)):
            here = (t, r, w)
            step = (self.s[here], self.a[here], self.r[here], self.after[here], self.ended[here])
            found[-1].append((int(step[0]), int(step[1]), float(step[2]), int(step[3]), bool(step[4])))
            if self.last[here]:
                found.append([])
        return found


def walk(
    seed: int, steps: int, replicas: int, worlds: int, states: int, actions: int, ending: float = 0.1, cut: float = 0.1
) -> Walk:
    """Steps that hang together: the successor is the next state, but where an episode is over."""
    rng = np.random.default_rng(seed)
    shape = (steps, replicas, worlds)
    ended = rng.random(shape) < ending
    last = ended | (rng.random(shape) < cut)
    s, after = np.zeros(shape, np.int64), rng.integers(0, states, shape)
    s[0] = rng.integers(0, states, shape[1:])
    for t in range(1, steps):
        s[t] = np.where(last[t - 1], rng.integers(0, states, shape[1:]), after[t - 1])
    r = rng.normal(size=shape).astype(np.float32)
    return Walk(s, rng.integers(0, actions, shape), r, after, ended, last)
