"""Learning episode by episode: what each replica earned in each of its first episodes, and how long they were."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from envs.world import World
from experiments.claim import Setting
from rl.agents import trainer
from rl.evaluate import ci95
from rl.train import TrainConfig, Trainer
from rl.types import Agent

ENDLESS = 10**9  # steps


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
    loop = trainer(agent, world, config, TrainConfig(ENDLESS, worlds=1, report_every=1), replicas=replicas, seed=seed)
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


def interval(per_replica: Float64[Tensor, "R"], seed: int) -> str:
    """The mean of R replicas' numbers beside the 95% interval of their interquartile mean."""
    low, high = ci95(per_replica, seed)
    return f"{float(per_replica.mean()):.3g} [{low:.3g}, {high:.3g}]"
