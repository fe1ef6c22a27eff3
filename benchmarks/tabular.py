"""R Q-learning replicas side by side, beside loops that train one: a textbook's with Gymnasium, and one of bare Python.

All learn on FrozenLake-v1 with the same step sizes and exploration, for as many steps a replica: one world, one step
at a time, and so by default is each replica of ours: `rl.train.Trainer` as `qx train` runs it, with W worlds to a
replica and reports as often as it gives them by default. The loops report nothing, so ours is measured once more with
one report at the end (`silent_ratio`).

**The textbook's loop is judged** (`ratio`): Gymnasium's `env.step`, a numpy table, numpy's random numbers; it is what a
reader of the book writes. By far most of its time is not the algorithm but Gymnasium and numpy, one number at a time.
What the algorithm itself costs in Python is the bare loop (`bare_ratio`): the same world as lists, and no library.

Both use one thread, ours as many as torch does (`threads`). They take turns, and of each the fastest counts: what else
the machine does only slows.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch

from envs.catalog import load
from rl.agents import trainer
from rl.recipes.tabular import QLearningConfig
from rl.train import TrainConfig

WORLD, GAMMA, ALPHA, EPSILON = "FrozenLake-v1", 0.99, 0.1, 0.1
LIMIT = 100  # steps of an episode, as Gymnasium has it


def measure(
    steps: int = 20_000, replicas: int = 1000, worlds: int = 1, *, repeats: int = 3, device: str = "cpu"
) -> dict[str, Any]:
    """Seconds that `steps` steps take: of each loop that trains one, and of all `replicas` replicas of ours.

    Args:
        steps: of each learner.
        replicas: ours, side by side.
        worlds: that each of ours acts in.
        repeats: how often each is measured.
        device: where ours learn.

    Returns:
        `python_seconds` (the textbook's loop), `bare_seconds`, `ours_seconds`; `ratio`, which is judged, and
        `bare_ratio`, ours over each (1 or less means all replicas in the time of one loop); `silent_seconds` and
        `silent_ratio`, ours without reports, and over the textbook's loop; `updates_per_second` of all; and
        `replicas`, `worlds`, `steps`, `threads` (ours).
    """

    def ours_with(report_every: int) -> float:
        return side_by_side(steps, replicas, TrainConfig(worlds=worlds, report_every=report_every), device)

    often = TrainConfig().report_every
    rounds = [(plain(steps), bare(steps), ours_with(often), ours_with(2 * steps)) for _ in range(repeats)]
    python, lists, ours, silent = (min(seconds) for seconds in zip(*rounds, strict=True))
    return {
        "python_seconds": python,
        "bare_seconds": lists,
        "ours_seconds": ours,
        "silent_seconds": silent,
        "ratio": ours / python,
        "silent_ratio": silent / python,
        "bare_ratio": ours / lists,
        "python_updates_per_second": steps / python,
        "bare_updates_per_second": steps / lists,
        "ours_updates_per_second": replicas * steps / ours,
        "silent_updates_per_second": replicas * steps / silent,
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


def bare(steps: int) -> float:
    """Seconds of the same loop without any library: lists, and the world's own table, whose outcomes are equal bins."""
    env: Any = gymnasium.make(WORLD).unwrapped
    table = [[[outcome[1:] for outcome in env.P[s][a]] for a in range(4)] for s in range(16)]
    draw = random.Random(0).random
    q = [[0.0] * 4 for _ in range(16)]
    s = age = 0
    began = time.perf_counter()
    for _ in range(steps):
        row = q[s]
        a = int(draw() * 4) if draw() < EPSILON else row.index(max(row))
        outcomes = table[s][a]
        after, r, terminated = outcomes[int(draw() * len(outcomes))]
        target = r + (0.0 if terminated else GAMMA * max(q[after]))
        row[a] += ALPHA * (target - row[a])
        age += 1
        s, age = (0, 0) if terminated or age == LIMIT else (after, age)
    return time.perf_counter() - began


def side_by_side(steps: int, replicas: int, reports: TrainConfig, device: str) -> float:
    """Seconds of ours; a tenth of the steps, in which code is made and caches fill, go before and do not count."""
    config = QLearningConfig(gamma=GAMMA, alpha=ALPHA, omega=0.0, epsilon=EPSILON, final_epsilon=EPSILON)
    warm = max(1, steps // (10 * reports.worlds)) * reports.worlds
    length = replace(reports, steps=warm + steps)
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
