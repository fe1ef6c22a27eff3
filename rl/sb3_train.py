"""stable-baselines3 as one of our training loops: R seeds, one after another.

    trainer = sb3_train.trainer("sb3:ppo", world, config, TrainConfig(steps=50_000, worlds=8), replicas=5, seed=0)
    for step, metrics in trainer.run():
        ...

Steps count all replicas: replica r learns from step r S to (r + 1) S, S the steps of one.

What can be resumed. The library saves by pickle, which this house never reads, and its learners draw from global
generators; so a run goes on from the last replica that was finished. The one that was cut begins again, as it began
before, for each replica is a function of its own seed: the end is bit for bit the same, and what a kill can cost is the
time of one replica.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from torch import Tensor

from envs.gymworlds import GymWorld
from envs.world import World
from rl.agents import defaults
from rl.recipe import replica_seeds
from rl.sb3_agent import Ambient, Sb3Agent, algorithm, untrained
from rl.train import TrainConfig, world_keys

SAID = {  # the library's names -> ours
    "train/loss": "loss",
    "train/policy_gradient_loss": "policy_loss",
    "train/policy_loss": "policy_loss",
    "train/value_loss": "value_loss",
    "train/entropy_loss": "entropy_loss",
    "train/approx_kl": "kl",
    "train/clip_fraction": "clipped",
    "train/explained_variance": "explained_variance",
    "rollout/exploration_rate": "epsilon",
}


class Whole(BaseCallback):  # type: ignore[misc]  # the library is not typed here
    """Lets schedules run over the whole of the training, though it is asked for in pieces."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def _on_training_start(self) -> None:
        self.model._total_timesteps = self.steps

    def _on_step(self) -> bool:
        return True


class Sb3Trainer:
    """Trains R policies, one after another.

    Args:
        agent: R of them.
        make: the algorithm of replica r, at its beginning.
        config: length and reports; `report_every` is rounded up to the algorithm's own rounds.
    """

    def __init__(self, agent: Sb3Agent, make: Callable[[int], Any], config: TrainConfig) -> None:
        self.agent, self.config, self._make = agent, config, make
        self.finished = 0

    @property
    def step(self) -> int:
        """Steps of the replicas that are finished."""
        return self.finished * self.config.steps

    @property
    def running(self) -> Sb3Agent:
        """The replica that learns, or the last that did, by itself."""
        r = min(self.finished, self.agent.replicas - 1)
        return Sb3Agent([self.agent.policies[r]], self.agent.gamma, self.agent.device)

    def run(self, until: int | None = None) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Learn until step `until` (by default all R S of them) and yield (step, metrics [1]) at every report.

        The metrics: `replica` (from 1) and its `own_step`; `return` (undiscounted) and `length`, means of the episodes
        that ended since the last report; and what the library says of itself: `loss`, `epsilon`, `policy_loss`, ...
        """
        steps, every = self.config.steps, self.config.report_every
        until = self.agent.replicas * steps if until is None else until
        while self.step < until:
            r, ambient = self.finished, Ambient()
            with ambient.lent():
                model = self._make(r)
            model.set_logger(Logger(None, []))
            self.agent.policies[r] = model.policy
            for own in [*range(every, steps, every), steps]:
                if own > model.num_timesteps:
                    with ambient.lent():
                        due, first = own - model.num_timesteps, model.num_timesteps == 0
                        model.learn(due, Whole(steps), log_interval=None, reset_num_timesteps=first)
                metrics = _said(model) | {
                    "replica": torch.tensor([float(r + 1)]),
                    "own_step": torch.tensor([float(own)]),
                }
                self.finished += own == steps
                at = r * steps + own
                yield at, metrics
                if at >= until:
                    return

    def state_dict(self) -> dict[str, Any]:
        """The replicas that are finished, and how many; the one that learns will begin again."""
        weights = self.agent.state_dict()["weights"]
        return {"finished": self.finished, "weights": {name: each[: self.finished] for name, each in weights.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last replica that was finished."""
        self.finished = state["finished"]
        every = self.agent.state_dict()["weights"]
        whole = {
            name: torch.cat([state["weights"][name].to(each.device), each[self.finished :]])
            for name, each in every.items()
        }
        self.agent.load_state_dict({"weights": whole})


def _said(model: Any) -> dict[str, Tensor]:
    """What there is to report of the last piece, once."""
    ended, values = model.env.ended, model.logger.name_to_value
    mean = torch.tensor(ended, dtype=torch.float64).mean(0) if ended else torch.full((2,), torch.nan)
    said = {"return": mean[:1], "length": mean[1:]}
    said |= {ours: torch.tensor([float(values[theirs])]) for theirs, ours in SAID.items() if theirs in values}
    ended.clear()
    values.clear()
    return said


def trainer(
    name: str,
    world: World | GymWorld,
    config: Any = None,
    length: TrainConfig | None = None,
    *,
    replicas: int = 5,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Sb3Trainer:
    """As `rl.agents.trainer`, for the names of `rl.sb3_learners`. Raises AgentError."""
    usual, usual_length = defaults(name, world.name)
    config, length = usual if config is None else config, usual_length if length is None else length
    seeds = replica_seeds(seed, replicas)

    def make(r: int) -> Any:
        keys = world_keys(seed, replicas, length.worlds).view(replicas, -1)[r]
        seen = {"observation": config.observation} if isinstance(world, World) else {}
        acting = world.simulate(keys, **seen)
        return algorithm(config, world, acting, seeds[r], steps=length.steps, device=device)

    return Sb3Trainer(untrained(config, world, replicas, seed, device), make, length)
