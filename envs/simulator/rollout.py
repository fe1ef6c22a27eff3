"""Many steps in one call, episodes beginning anew as they end: eagerly, compiled, or as a CUDA graph.

The three ways take the same `Tables.move` and yield the same bits. On the CPU worlds go in blocks that stay in a core's
cache, each for all its steps, for worlds know nothing of each other; elsewhere all worlds go together, and no step
asks the device for anything. Rewards are added up in float32 over `WINDOW` steps, and those sums in float64.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Float64, Int32, Int64
from torch import Tensor

from envs.simulator.stepping import Carry, Move, Policy, Roots, Tables
from envs.simulator.stride import Captured, Compiled, Stride, apart, together
from lab import pages

MODES = ("eager", "compile", "cudagraph")
BLOCK = 2**15  # worlds that go together in one thread; beyond this many torch's own threads take over
WINDOW = 64  # steps of which rewards are added in float32


@dataclass(frozen=True, eq=False)
class Rollout:
    """T steps of N worlds. Where an episode ended the next step's state is the first of another."""

    state: Int32[Tensor, "T N"]
    """In which the action was taken."""
    action: Int32[Tensor, "T N"]
    reward: Float32[Tensor, "T N"]
    successor: Int32[Tensor, "T N"]
    """The true successor, also where the episode ended."""
    terminated: Bool[Tensor, "T N"]
    truncated: Bool[Tensor, "T N"]


class Totals(NamedTuple):
    """What is left of many steps of N worlds."""

    reward: Float64[Tensor, "N"]
    """Sum of all rewards."""
    episodes: Int64[Tensor, "N"]
    """Episodes that ended."""


class Walker:
    """Takes the worlds of `roots` through many steps. The carry that it is given may be overwritten."""

    def __init__(self, tables: Tables, roots: Roots) -> None:
        self._tables, self._roots = tables, roots
        self._long: dict[tuple[str, bool, str], Stride] = {}  # compiled and captured so far

    def rollout(self, carry: Carry, policy: Policy, steps: int, mode: str) -> tuple[Rollout, Carry]:
        """Record every step; returns the record and the carry at the end."""
        shape, device = (steps, len(carry.state)), carry.state.device
        dtypes = (torch.int32, torch.int32, torch.float32, torch.int32, torch.bool, torch.bool)
        record = Rollout(*(torch.empty(shape, dtype=dtype, device=device) for dtype in dtypes))
        return record, self._walk(carry, policy, steps, mode, record, None)

    def totals(self, carry: Carry, policy: Policy, steps: int, mode: str) -> tuple[Totals, Carry]:
        """Keep only sums; returns them and the carry at the end."""
        reward = torch.zeros(len(carry.state), dtype=torch.float64, device=carry.state.device)
        before = carry.episode.clone()
        carry = self._walk(carry, policy, steps, mode, None, reward)
        return Totals(reward, carry.episode - before), carry

    def _walk(
        self, carry: Carry, policy: Policy, steps: int, mode: str, record: Rollout | None, reward: Tensor | None
    ) -> Carry:
        N, kind = len(carry.state), carry.state.device.type
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
        if mode == "cudagraph" and kind != "cuda":
            raise ValueError(f"mode is 'cudagraph' and the worlds are on the {kind}, expected worlds on CUDA")
        short: Stride = apart if kind == "cpu" else together
        threads = torch.get_num_threads()
        size = N
        if kind == "cpu" and mode == "eager":
            size = min(BLOCK, max(-(-N // threads), BLOCK // 8))
            pages.keep()
        elif kind == "cpu":
            size, threads = 2 * BLOCK, 1  # compiled code has threads of its own

        def go(low: int) -> None:
            worlds = slice(low, min(low + size, N))
            stream, block = self._roots
            roots = Roots(stream[worlds], None if block is None else block[worlds])
            part = Carry(*(tensor[worlds] for tensor in carry))
            strides = [short]
            if mode != "eager":
                strides = [self._stride(mode, part, roots, policy, record is not None), short]
            done = _block(strides, self._tables, part, roots, policy, steps, worlds, record, reward)
            for old, new in zip(part, done, strict=True):
                old.copy_(new)

        if threads == 1 or size >= N:
            for low in range(0, N, size):
                go(low)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(go, range(0, N, size)))
        return carry

    def _stride(self, mode: str, carry: Carry, roots: Roots, policy: Policy, record: bool) -> Stride:
        """Several steps in one call; made at the first of a kind."""
        key = (mode, record, policy.form)
        if key not in self._long:
            make = Compiled if mode == "compile" else Captured
            self._long[key] = make(self._tables, carry, roots, policy, record)
        return self._long[key]


def _block(
    strides: list[Stride],
    tables: Tables,
    carry: Carry,
    roots: Roots,
    policy: Policy,
    steps: int,
    worlds: slice,
    record: Rollout | None,
    reward: Tensor | None,
) -> Carry:
    """All steps of some of the worlds, by the longest stride that is left."""
    gained, t = torch.zeros_like(carry.state, dtype=torch.float32), 0
    while t < steps:
        stride = next(stride for stride in strides if t + stride.steps <= steps)
        carry, gained, moves = stride(tables, carry, gained, roots, policy, record is not None)
        if record is not None:
            for k, (state, move) in enumerate(moves):
                _write(record, t + k, worlds, state, move)
        t += stride.steps
        if reward is not None and (t % WINDOW == 0 or t == steps):
            reward[worlds] += gained
            gained = torch.zeros_like(gained)
    return carry


def _write(record: Rollout, t: int, worlds: slice, state: Tensor, move: Move) -> None:
    record.state[t, worlds] = state
    record.action[t, worlds] = move.action
    record.reward[t, worlds] = move.reward
    record.successor[t, worlds] = move.state
    record.terminated[t, worlds] = move.terminated.bool()
    record.truncated[t, worlds] = (move.ended ^ move.terminated).bool()
