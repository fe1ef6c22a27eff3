"""Random steps a second with resets: ours beside Gymnasium's, MiniGrid's and the JAX peers', in one run on one machine.

Every row is a number of worlds stepped under uniformly random actions, where ended episodes begin again. Ours take
`Simulator.run` in each of its modes, and where images are looked at `Simulator.step` and `reset`, whose planes are
gathered twice a step. Each peer runs in a process of its own, one after another (see `peers.py`), in an interpreter
that may be another than ours: gymnax wants an older Gymnasium than the house has. Peers run on the CPU, whatever the
device of ours is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import envs
from envs.simulator import Simulator
from lab import streams

SIZES = (1, 16, 256, 4096, 65_536, 1_048_576)
PEERS = {
    "gymnasium": "Gymnasium FrozenLake-v1",
    "minigrid": "MiniGrid Empty-8x8",
    "navix": "navix Empty-8x8",
    "gymnax": "gymnax FourRooms",
    "xminigrid": "xland-minigrid Empty-8x8",
}
JAX = ("navix", "gymnax", "xminigrid")
BUDGET = 30.0  # seconds that building and one call of a peer may take
PATIENCE = 240.0  # seconds of one peer in all
STEPS = 64  # of one call of ours, as of the JAX peers
INSTALL = "pip install -r benchmarks/peers.txt"


@dataclass(frozen=True)
class Result:
    """One measurement."""

    name: str
    worlds: int
    steps_per_second: float | None
    """None where it was not measured."""
    note: str = ""
    """Why not."""


@dataclass(frozen=True)
class Ours:
    """One way to step one of our worlds."""

    name: str
    world: str
    observation: str
    mode: str | None
    """Of `Simulator.run`; None for `step` and `reset`."""


def ours(device: str) -> list[Ours]:
    """What is measured of ours on a device."""
    modes = ("eager", "compile", "cudagraph") if device == "cuda" else ("eager", "compile")
    runs = [
        Ours(f"quincunx {name}, {mode}", world, "index", mode)
        for name, world in (("FrozenLake", "frozenlake-4x4"), ("four rooms", "four-rooms"))
        for mode in modes
    ]
    planes = [
        Ours(f"quincunx {name}, planes", world, "planes", None)
        for name, world in (("FrozenLake", "frozenlake-4x4"), ("four rooms", "four-rooms"))
    ]
    return runs + planes


def measure(way: Ours, sizes: Sequence[int], seconds: float, device: str) -> Iterator[Result]:
    """Ours at each size; compiling is not counted."""
    for n in sizes:
        world = envs.load(way.world)
        assert isinstance(world, envs.World)
        size = 3 * n * world.observe(way.observation)[0].numel() * 4  # bytes of observations held at a time
        if size > 2**33:
            yield Result(way.name, n, None, f"its observations would take {size / 2**30:.0f} GiB")
            continue
        keys = streams.bits(torch.tensor(0), torch.arange(n))
        worlds = world.simulate(keys, observation=way.observation, device=device)
        worlds.reset()
        if way.mode is None:
            yield Result(way.name, n, _rate(_stepped(worlds, n, device), n, seconds, device))
        else:
            yield Result(way.name, n, _rate(_ran(worlds, way.mode), n * STEPS, seconds, device))


def _ran(worlds: Simulator, mode: str) -> Callable[[], torch.Tensor]:
    return lambda: worlds.run(STEPS, mode=mode).reward.sum()


def _stepped(worlds: Simulator, n: int, device: str) -> Callable[[], torch.Tensor]:
    generator = torch.Generator(device).manual_seed(0)

    def call() -> torch.Tensor:
        action = torch.randint(worlds.actions, (n,), generator=generator, device=device)
        step = worlds.step(action)
        obs = worlds.reset(step.terminated | step.truncated)
        return step.reward.sum() + obs.view(-1)[0]

    return call


def _rate(call: Callable[[], torch.Tensor], steps: int, seconds: float, device: str) -> float:
    """Steps a second, after two calls that do not count. The sums are kept, so that nothing is left out."""
    kept = call() + call()
    if device == "cuda":
        torch.cuda.synchronize()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        kept += call()
        count += 1
        if device == "cuda" and count % 16 == 0:
            torch.cuda.synchronize()
    assert bool(kept.isfinite())  # and waits for the device
    return count * steps / (time.perf_counter() - began)


def interpreter() -> str:
    """The Python that has the peers: QX_PEERS_PYTHON, or `.venv-peers`, where there is one, or our own."""
    beside = Path(__file__).parents[1] / ".venv-peers/bin/python"
    return os.environ.get("QX_PEERS_PYTHON") or (str(beside) if beside.exists() else sys.executable)


def peer(name: str, sizes: Sequence[int], seconds: float) -> Iterator[Result]:
    """One peer at each size, as soon as each is measured."""
    python, label = interpreter(), PEERS[name]
    tried = subprocess.run([python, "-c", f"import {name}"], capture_output=True, text=True)
    if tried.returncode:
        missing = "ModuleNotFoundError" in tried.stderr or not tried.stderr
        why = f"not installed: {INSTALL}" if missing else tried.stderr.strip().splitlines()[-1][:100]
        yield from (Result(label, n, None, why) for n in sizes)
        return
    command = [python, "-W", "ignore", str(Path(__file__).with_name("peers.py")), name, str(seconds), str(BUDGET)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    left, until = list(sizes), time.monotonic() + PATIENCE
    with subprocess.Popen(
        [*command, *map(str, sizes)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            said, error = process.communicate(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            said, error = process.communicate()[0], f"not within {PATIENCE:.0f} s"
    for line in said.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
            left.remove(found["worlds"])
            yield Result(label, found["worlds"], found.get("steps_per_second"), found.get("skipped", ""))
    last = (error.strip().splitlines() or ["it stopped"])[-1]
    yield from (Result(label, n, None, last[:100]) for n in left)
