"""Deep Q-networks on CartPole-v1: ten of our seeds beside one of stable-baselines3's DQN, on one machine in one run.

    learning         seconds from nothing to a trained agent, evaluation not counted: ours as
                     `qx train double-dqn CartPole-v1` has it, R replicas in one program; the peer with the
                     hyperparameters that rl-zoo found for it
    gradient steps   updates of one network a second, every replica counted, nothing else going on: both with a network
                     of 256 x 256 without norms, batches of 64, Huber's loss, Adam and a clipped norm

A seed has solved the world when its greedy episodes last 475 steps on average (Gymnasium's own threshold). Both
measurements run in one process; gradient steps turn by turn, so that whatever else the machine does falls on both.

Source: rl-baselines3-zoo, hyperparams/dqn.yml, CartPole-v1 (Raffin 2020).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import stable_baselines3
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import envs
from rl.agents import AGENTS, defaults, trainer
from rl.deep.dqn import DQN
from rl.evaluate import evaluate
from rl.train import TrainConfig

AGENT, WORLD, SOLVED = "double-dqn", "CartPole-v1", 475.0
OURS, PEER = "quincunx", "stable-baselines3"
STEPS = 50_000
ZOO: dict[str, Any] = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1_000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
ROUND = 32  # updates in one measurement


@dataclass(frozen=True)
class Learnt:
    """One training."""

    seconds: float
    returns: list[float]
    """Mean greedy return of each seed."""

    @property
    def solved(self) -> int:
        """Seeds that solved the world."""
        return sum(r >= SOLVED for r in self.returns)


def ours(replicas: int, seed: int, steps: int | None = None, episodes: int = 20, agent: str = AGENT) -> Learnt:
    """Our agent on CartPole, `replicas` seeds at once; `steps` None is as long as its defaults say."""
    world, (config, length) = envs.load(WORLD), defaults(agent, WORLD)
    if steps is not None:
        length = dataclasses.replace(length, steps=steps)
    began = time.perf_counter()
    learning = trainer(agent, world, config, length, replicas=replicas, seed=seed)
    for _ in learning.run():
        pass
    seconds = time.perf_counter() - began
    found = evaluate(
        learning.agent, world, gamma=world.discount, observation=config.observation, seed=seed, episodes=episodes
    )
    return Learnt(seconds, found.returns.tolist())


def peer(seed: int, steps: int = STEPS, episodes: int = 20) -> Learnt:
    """One seed of stable-baselines3's DQN with rl-zoo's hyperparameters."""
    began = time.perf_counter()
    model = stable_baselines3.DQN("MlpPolicy", WORLD, seed=seed, device="cpu", **ZOO).learn(steps)
    seconds = time.perf_counter() - began
    env: Monitor = Monitor(gymnasium.make(WORLD))
    env.reset(seed=seed + 1_000_000)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=episodes, deterministic=True)
    return Learnt(seconds, [float(mean)])


def gradient_steps(replicas: int, seconds: float, seed: int = 0) -> dict[str, float]:
    """Updates of one network a second, ours (all replicas counted) and the peer's: medians over alternating rounds."""
    calls = {OURS: (_our_updates(replicas, seed), replicas), PEER: (_peer_updates(seed), 1)}
    rates: dict[str, list[float]] = {way: [] for way in calls}
    for call, _ in calls.values():
        call()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or not rates[PEER]:
        for way, (call, count) in calls.items():
            began = time.perf_counter()
            call()
            rates[way].append(count * ROUND / (time.perf_counter() - began))
    return {way: statistics.median(found) for way, found in rates.items()}


def _our_updates(replicas: int, seed: int) -> Callable[[], object]:
    config = AGENTS["dqn"].config(
        hidden=(256, 256),
        norm=False,
        batch_size=ZOO["batch_size"],
        learning_rate=ZOO["learning_rate"],
        target_every=ZOO["target_update_interval"],
        learning_starts=2_000,
        gradient_steps=ROUND,
    )
    learning = trainer("dqn", envs.load(WORLD), config, TrainConfig(steps=1_000), replicas=replicas, seed=seed)
    list(learning.run())
    agent = learning.agent
    assert isinstance(agent, DQN)
    return agent.learn


def _peer_updates(seed: int) -> Callable[[], object]:
    model = stable_baselines3.DQN(
        "MlpPolicy", WORLD, seed=seed, device="cpu", **{**ZOO, "learning_starts": 2_000}
    ).learn(1_000)
    return lambda: model.train(ROUND, ZOO["batch_size"])


def found(mine: Learnt, theirs: Sequence[Learnt], rates: dict[str, float]) -> dict[str, Any]:
    """The numbers that `qx bench dqn` prints."""
    seconds = statistics.median(one.seconds for one in theirs)
    return {
        "ratio": mine.seconds / seconds,
        "solved": mine.solved,
        "peer_solved": sum(one.solved for one in theirs),
        "peer_seeds": len(theirs),
        "gradient_steps_ratio": rates[OURS] / rates[PEER],
        "seconds": mine.seconds,
        "peer_seconds": [one.seconds for one in theirs],
        "returns": mine.returns,
        "peer_returns": [r for one in theirs for r in one.returns],
        "gradient_steps": rates,
        "threads": torch.get_num_threads(),
    }
