"""Random steps a second with resets, ours beside Gymnasium's own, in one run on one machine.

    python benchmarks/worlds.py [--seconds 1.0] [--device cuda]

Both step FrozenLake 4x4 (slippery) under uniformly random actions and begin ended episodes again. Ours is the
lifted table of the very environment that Gymnasium steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import gymnasium
import torch

import envs
from lab import console, streams


def quincunx(n: int, device: str) -> Callable[[], None]:
    """One step of n of our worlds."""
    world = envs.load("FrozenLake-v1")
    assert isinstance(world, envs.World)
    worlds = world.simulate(streams.keys(0, "world", n), observation="index", device=device)
    worlds.reset()
    generator = torch.Generator(device).manual_seed(0)

    def step() -> None:
        action = torch.randint(worlds.actions, (n,), generator=generator, device=device)
        done = worlds.step(action)
        worlds.reset(done.terminated | done.truncated)

    return step


def gymnasium_sync(n: int) -> Callable[[], None]:
    """One step of n of Gymnasium's worlds in its SyncVectorEnv."""
    made = gymnasium.make_vec("FrozenLake-v1", num_envs=n, vectorization_mode="sync")
    made.reset(seed=0)
    made.action_space.seed(0)
    return lambda: void(made.step(made.action_space.sample()))


def void(_: object) -> None:
    """Nothing of it."""


def rate(step: Callable[[], None], n: int, seconds: float, device: str = "cpu") -> float:
    """World steps a second, after a short warm-up."""
    for _ in range(3):
        step()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        step()
        count += 1
    if device == "cuda":
        torch.cuda.synchronize()
    return n * count / (time.perf_counter() - began)


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=1.0, help="how long to measure each; longer is steadier")
    arguments.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = arguments.parse_args()
    rows, peer = [], 0.0
    for n in (1, 16, 256):
        found = rate(gymnasium_sync(n), n, options.seconds)
        peer = max(peer, found)
        rows.append(["gymnasium SyncVectorEnv", f"{n}", f"{found:,.0f}", ""])
    for n in (1, 16, 256, 4096, 65_536):
        found = rate(quincunx(n, options.device), n, options.seconds, options.device)
        rows.append([f"quincunx ({options.device})", f"{n}", f"{found:,.0f}", f"{found / peer:.1f}"])
    console.table("random steps a second, FrozenLake 4x4", ["", "worlds", "steps/s", "x best of the peer"], rows)


if __name__ == "__main__":
    main()
