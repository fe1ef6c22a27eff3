"""Learning episode by episode: what each replica earned in each of its first episodes, and how long they were."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from envs.gymworlds import GymWorld
from envs.world import World
from experiments.claim import Setting
from lab import streams
from rl import agents
from rl.train import TrainConfig, Trainer
from rl.types import Agent


def endless(
    agent: str,
    world: World | GymWorld,
    config: object,
    *,
    replicas: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Trainer:
    """A trainer of R replicas in one world each that goes on until nobody asks any more, and reports at every step."""
    length = TrainConfig(steps=10**9, worlds=1, report_every=1)
    return agents.trainer(agent, world, config, length, replicas=replicas, seed=seed, device=device)


def learn(
    agent: str,
    world: World,
    config: object,
    *,
    replicas: int,
    episodes: int,
    seed: int,
    report: Callable[[float], None] = lambda share: None,
) -> tuple[Float64[Tensor, "R E"], Int64[Tensor, "R E"], Agent]:
    """Undiscounted return and length of the first E episodes of R replicas, one world each; and the agent after them.

    Replicas that are through go on while others are not; what they do then is not recorded.
    """
    loop = endless(agent, world, config, replicas=replicas, seed=seed)
    gained, length = per_episode(loop, episodes, report)
    return gained, length, loop.agent


def per_episode(
    loop: Trainer, episodes: int, report: Callable[[float], None] = lambda share: None
) -> tuple[Float64[Tensor, "R E"], Int64[Tensor, "R E"]]:
    """The same of a trainer with one world a replica that reports at every step."""
    gained = torch.zeros(loop.agent.replicas, episodes, dtype=torch.float64)
    length, before = torch.zeros_like(gained, dtype=torch.int64), torch.zeros(len(gained), dtype=torch.int64)
    for step, told in loop.run():
        done = told["episodes"].long().cpu()
        which = ((done > before) & (done <= episodes)).nonzero()[:, 0]
        if len(which):
            gained[which, done[which] - 1] = told["return"].cpu()[which]
            length[which, done[which] - 1] = told["length"].cpu()[which].long()
        before = done
        if step % 100 == 0:
            report(float(done.clamp(max=episodes).double().mean()) / episodes)
        if bool((done >= episodes).all()):
            break
    return gained, length


def part(setting: Setting, i: int, of: int, note: str) -> Callable[[float], None]:
    """What tells `setting` how far the i-th of `of` parts is."""

    def report(share: float) -> None:
        setting.report((i + share) / of, note)

    return report


def path(length: float) -> float | str:
    """The length or return of a path, in words where it has no end."""
    return length if math.isfinite(length) else "never arrives"


def interval(per_replica: Float64[Tensor, "R"], seed: int, resamples: int = 5000) -> str:
    """The mean of R replicas' numbers and its 95% percentile bootstrap interval."""
    R = len(per_replica)
    index = torch.randint(R, (resamples, R), generator=streams.generator(seed, "interval"))
    low, high = torch.quantile(per_replica[index].mean(1), torch.tensor([0.025, 0.975]).double())
    return f"{float(per_replica.mean()):.4g} [{float(low):.4g}, {float(high):.4g}]"
