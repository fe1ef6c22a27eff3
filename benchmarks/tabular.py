"""R Q-learning replicas side by side, beside the loop of a textbook that trains one: Gymnasium's world, numpy's table.

Both learn on FrozenLake-v1 with the same step sizes and exploration, for as many steps a replica. The textbook's loop
is one world, one step at a time, and so by default is each replica of ours: `rl.train.Trainer` as `qx train` runs it,
with W worlds to a replica; it reports every `REPORT` turns, which the loop never does. The two take turns, and of each
the fastest counts: what else the machine does only slows.
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
REPORT = 1000


def measure(
    steps: int = 20_000, replicas: int = 1000, worlds: int = 1, *, repeats: int = 3, device: str = "cpu"
) -> dict[str, Any]:
    """Seconds that `steps` steps take: of one plain Python loop, and of all `replicas` replicas of ours.

    Args:
        steps: of each learner.
        replicas: ours, side by side.
        worlds: that each of ours acts in.
        repeats: how often each is measured.
        device: where ours learn.

    Returns:
        `python_seconds`, `ours_seconds`, `ratio` (ours over Python's: 1 or less means all replicas in the time of one
        loop), and `updates_per_second` of both.
    """
    both = [(plain(steps), side_by_side(steps, replicas, worlds, device)) for _ in range(repeats)]
    python, ours = (min(seconds) for seconds in zip(*both, strict=True))
    return {
        "python_seconds": python,
        "ours_seconds": ours,
        "ratio": ours / python,
        "python_updates_per_second": steps / python,
        "ours_updates_per_second": replicas * steps / ours,
        "replicas": replicas,
        "worlds": worlds,
        "steps": steps,
        "threads": torch.get_num_threads(),
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


def side_by_side(steps: int, replicas: int, worlds: int, device: str) -> float:
    """Seconds of ours; a tenth of the steps, in which code is made and caches fill, go before and do not count."""
    config = QLearningConfig(gamma=GAMMA, alpha=ALPHA, omega=0.0, epsilon=EPSILON, final_epsilon=EPSILON)
    warm = max(1, steps // (10 * worlds)) * worlds
    length = TrainConfig(steps=warm + steps, worlds=worlds, report_every=REPORT * worlds)
    loop = trainer("q-learning", load(WORLD), config, length, replicas=replicas, device=device)
    list(loop.run(until=warm))
    _wait(device)
    began = time.perf_counter()
    list(loop.run())
    _wait(device)
    return (time.perf_counter() - began) * steps / (loop.step - warm)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
