"""The one loop of every agent: worlds <-> agent.

    trainer = Trainer(agent, worlds, TrainConfig(steps=50_000, worlds=8))
    for step, metrics in trainer.run():
        ...                      # log, plot, evaluate, checkpoint or stop: the loop is at rest at every yield

R replicas act in W worlds each, all N = R W of them stepped together; worlds r W ... r W + W - 1 are replica r's.
A step is one step of the environment as one replica counts it, so one turn of the loop is W steps.
Nothing is drawn here: agent and worlds draw from their own keys, so `state_dict` is all there is to a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from envs.types import Worlds
from lab import streams
from rl import order
from rl.tabular import compiled
from rl.types import Agent, Transition


@dataclass(frozen=True)
class TrainConfig:
    """How long to learn, and from how many worlds at once."""

    steps: int = 50_000
    """Steps of each replica in all. More: longer, and better if the agent's schedules are stretched along."""
    worlds: int = 8
    """Worlds that each replica acts in side by side. More: faster, and the agent sees its own steps later."""
    report_every: int = 100
    """Steps between two reports. More: smoother numbers, and fewer of them."""


def world_keys(seed: int, replicas: int, worlds: int) -> Int64[Tensor, "N"]:
    """The keys of all worlds in the loop's order; those of a replica are the same however many ride along."""
    return streams.keys(seed, "world", replicas, worlds).flatten()


def forget(memory: Float32[Tensor, "R W *memory"], over: Bool[Tensor, "R W"]) -> Float32[Tensor, "R W *memory"]:
    """What is remembered in each world, nothing where an episode is over."""
    return memory.masked_fill(over.view(*over.shape, *[1] * (memory.ndim - 2)), 0)


class Trainer:
    """Trains one agent; everything it holds is in `state_dict`.

    Args:
        agent: R learners.
        worlds: `agent.replicas * config.worlds` worlds (see `world_keys`).
        config: length and reports.

    Raises:
        ValueError: when the number of worlds is another.
    """

    def __init__(self, agent: Agent, worlds: Worlds, config: TrainConfig) -> None:
        R, W = agent.replicas, config.worlds
        if worlds.n != R * W or W < 1:
            raise ValueError(f"there are {worlds.n} worlds, expected {R * W}: {W} for each of {R} replicas")
        self.agent, self.worlds, self.config = agent, worlds, config
        self.obs = worlds.reset()  # [N, ...]
        self.memory = agent.memory(W)  # [R, W, ...], zeros where an episode begins
        self.step = 0
        device = self.obs.device
        self.running = torch.zeros(2, R * W, dtype=torch.float64, device=device)  # return and length so far
        self.recent = torch.full((2, R), torch.nan, dtype=torch.float64, device=device)  # of the last reports
        self.episodes = torch.zeros(R, dtype=torch.int64, device=device)
        self._open_window()

    def run(self, until: int | None = None) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Learn until `until` (by default all of `config.steps`) and yield (step, metrics [R]) at every report.

        The metrics: `reward` per step; `return` (undiscounted) and `length`, means of the episodes that ended since
        the last report (or else the former ones: nan before the first); `episodes` so far; and what the agent says
        of itself, means over the updates since the last report.
        """
        until = self.config.steps if until is None else until
        every = self.config.report_every
        stride = compiled.stride(self.agent, self.worlds)  # for tables, the turns until a report in one call
        while self.step < until:
            due = min(until, (self.step // every + 1) * every)
            if stride is None:
                self._turn()
            else:
                self._live(stride, -(-(due - self.step) // self.config.worlds))
            if self.step >= due:
                yield self.step, self._close_window()

    def _turn(self) -> None:
        """One step of every world."""
        R, W = self.agent.replicas, self.config.worlds
        obs = self.obs.view(R, W, *self.obs.shape[1:])
        action, memory = self.agent.act(obs, self.memory)
        step = self.worlds.step(action.flatten())
        last = step.terminated | step.truncated  # [N]
        transition = Transition(
            obs=obs,
            memory=self.memory,
            action=action,
            reward=step.reward.view(R, W),
            next_obs=step.obs.view_as(obs),
            discount=(~step.terminated).float().view(R, W),
            last=last.view(R, W),
        )
        self._said.append(self.agent.update(transition))
        self.running += torch.stack([step.reward.double(), torch.ones_like(self.running[0])])
        self._reward += order.mean(step.reward.double().view(R, W))
        self._turns += 1
        # Asking whether any episode ended is free on the CPU; elsewhere it would make the host wait for the device.
        if last.device.type != "cpu" or last.any():
            self._finished += order.total((self.running * last).view(2, R, W))
            self._ended += last.view(R, W).sum(1)
            self.running *= ~last
            self.obs = self.worlds.reset(last)
            self.memory = forget(memory, last.view(R, W))
        else:
            self.obs, self.memory = step.obs, memory
        self.step += W

    def _live(self, stride: compiled.Stride, turns: int) -> None:
        """The same as that many turns, in as few calls as who interrupts may wait for."""
        for lived, obs, said in stride(turns, self.running, self._reward, self._finished, self._ended):
            self.obs, self._said[:] = obs, [said]  # all since the last report
            self._turns += lived
            self.step += lived * self.config.worlds

    def _open_window(self) -> None:
        device, R = self.running.device, self.agent.replicas
        self._said: list[dict[str, Tensor]] = []
        self._turns = 0
        self._reward = torch.zeros(R, dtype=torch.float64, device=device)
        self._finished = torch.zeros(2, R, dtype=torch.float64, device=device)
        self._ended = torch.zeros(R, dtype=torch.int64, device=device)

    def _close_window(self) -> dict[str, Tensor]:
        self.episodes = self.episodes + self._ended
        self.recent = torch.where(self._ended > 0, self._finished / self._ended, self.recent)
        metrics: dict[str, Tensor] = {
            "reward": self._reward / self._turns,
            "return": self.recent[0],
            "length": self.recent[1],
            "episodes": self.episodes.double(),
        }
        for name in dict.fromkeys(name for said in self._said for name in said):
            each = [said[name] for said in self._said if name in said]
            metrics[name] = each[0] if len(each) == 1 else order.mean(torch.stack(each, -1))
        self._open_window()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """A tree of tensors and numbers (see `lab.tree`) at a yield; with configs and seed, all of a run."""
        return {
            "step": self.step,
            "agent": self.agent.state_dict(),
            "worlds": self.worlds.state_dict(),
            "obs": self.obs.clone(),
            "memory": self.memory.clone(),
            "running": self.running.clone(),
            "recent": self.recent.clone(),
            "episodes": self.episodes.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.step = state["step"]
        self.agent.load_state_dict(state["agent"])
        self.worlds.load_state_dict(state["worlds"])
        device = self.obs.device
        self.obs, self.memory = state["obs"].to(device), state["memory"].to(device)
        self.running = state["running"].to(device, copy=True)
        self.recent = state["recent"].to(device)
        self.episodes = state["episodes"].to(device)
        self._open_window()
