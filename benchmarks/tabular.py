"""R Q-learning replicas side by side, beside the loop of a textbook that trains one: Gymnasium's world, numpy's table.

Both learn on FrozenLake-v1 with the same step sizes and exploration, for as many steps a replica. The textbook's loop
is one world, one step at a time. Ours is `rl.train.Trainer` as `qx train` runs it, W worlds to a replica.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
import torch

from envs.catalog import load
from rl.agents import trainer
from rl.recipes.tabular import QLearningConfig
from rl.train import TrainConfig

WORLD, GAMMA, ALPHA, EPSILON = "FrozenLake-v1", 0.99, 0.1, 0.1


def measure(
    steps: int = 20_000, replicas: int = 1000, worlds: int = 8, *, turns: int = 400, device: str = "cpu"
) -> dict[str, Any]:
    """Seconds that `steps` steps take: of one plain Python loop, and of each of `replicas` replicas of ours.

    Args:
        steps: of each learner.
        replicas: ours, side by side.
        worlds: that each of ours acts in.
        turns: of ours, timed; the seconds of all `steps / worlds` follow in proportion.
        device: where ours learn.

    Returns:
        `python_seconds`, `ours_seconds`, `ratio` (ours over Python's: 1 or less means all replicas in the time of one
        loop), and `updates_per_second` of both.
    """
    python = plain(steps)
    ours = side_by_side(replicas, worlds, turns, device) * steps / worlds
    return {
        "python_seconds": python,
        "ours_seconds": ours,
        "ratio": ours / python,
        "python_updates_per_second": steps / python,
        "ours_updates_per_second": replicas * steps / ours,
        "replicas": replicas,
        "worlds": worlds,
        "steps": steps,
    }


def plain(steps: int) -> float:
    """Seconds of the textbook's loop."""
    env: gymnasium.Env[Any, Any] = gymnasium.make(WORLD)
    rng = np.random.default_rng(0)
    q = np.zeros((16, 4))
    s, _ = env.reset(seed=0)
    began = time.perf_counter()
    for _ in range(steps):
        a = int(rng.integers(4)) if rng.random() < EPSILON else int(q[s].argmax())
        after, r, terminated, truncated, _ = env.step(a)
        target = float(r) + (0.0 if terminated else GAMMA * q[after].max())
        q[s, a] += ALPHA * (target - q[s, a])
        s = env.reset()[0] if terminated or truncated else after
    seconds = time.perf_counter() - began
    env.close()
    return seconds


def side_by_side(replicas: int, worlds: int, turns: int, device: str) -> float:
    """Seconds of one turn of ours, a step of every world; a tenth of the turns before do not count."""
    config = QLearningConfig(gamma=GAMMA, alpha=ALPHA, omega=0.0, epsilon=EPSILON, final_epsilon=EPSILON)
    warm = max(1, turns // 10)
    length = TrainConfig(steps=(warm + turns) * worlds, worlds=worlds, report_every=100 * worlds)
    loop = trainer("q-learning", load(WORLD), config, length, replicas=replicas, device=device)
    list(loop.run(until=warm * worlds))
    _wait(device)
    began = time.perf_counter()
    list(loop.run())
    _wait(device)
    return (time.perf_counter() - began) / turns


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
