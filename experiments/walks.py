"""Random walks for learners of their values: R learners side by side, each until it has lived E episodes.

A run is one seed: the same walks for every learner of that run, so that settings are compared on equal experience.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from envs.catalog import load
from envs.world import World
from lab import streams
from rl import dp
from rl.tabular.prediction import Prediction
from rl.types import Transition


def walk_of(name: str) -> World:
    """A world of the catalogue that is a table."""
    world = load(name)
    assert isinstance(world, World)
    return world


def uniform(world: World) -> Float64[Tensor, "S A"]:
    """The policy of a random walk."""
    return torch.full((world.mdp.states, world.actions), 1 / world.actions, dtype=torch.float64)


def truth(world: World) -> Float64[Tensor, "S"]:
    """The exact values of the random walk, undiscounted."""
    return dp.evaluate_exactly(world.mdp, uniform(world), 1.0)


def seeds(root: int, runs: int) -> list[int]:
    """A seed for each run."""
    return [streams.derive(root, "run", k) for k in range(runs)]


def errors(agent: Prediction, world: World, run_seeds: list[int], episodes: int) -> Float64[Tensor, "R E1"]:
    """RMS error over the states of each learner, before any and after each of its first `episodes` episodes.

    Args:
        agent: R learners in one world each.
        world: an undiscounted walk without a time limit.
        run_seeds: one for each learner; those with the same seed, and the same policy, live the same.
        episodes: E.
    """
    R, lived, exact = agent.replicas, world.mdp.lived(), truth(world)
    keys = torch.tensor([streams.derive(seed, "world") for seed in run_seeds])
    worlds, place = world.simulate(keys), torch.arange(R)

    def rms() -> Float64[Tensor, "R"]:
        return (agent.v.value - exact)[:, lived].square().mean(1).sqrt()

    found = torch.zeros(R, episodes + 2, dtype=torch.float64)  # the last column takes what comes later
    found[:, 0] = rms()
    done = torch.zeros(R, dtype=torch.int64)
    obs, memory = worlds.reset().view(R, 1), agent.memory(1)
    while int(done.min()) < episodes:
        action, _ = agent.act(obs, memory)
        step = worlds.step(action.view(R))
        agent.update(
            Transition(
                obs=obs,
                memory=memory,
                action=action,
                reward=step.reward.view(R, 1),
                next_obs=step.obs.view(R, 1),
                discount=(~step.terminated).float().view(R, 1),
                last=step.terminated.view(R, 1),
            )
        )
        obs = step.obs.view(R, 1)
        if step.terminated.any():
            done += step.terminated
            found[place, torch.where(step.terminated, done, episodes + 1).clamp(max=episodes + 1)] = rms()
            obs = worlds.reset(step.terminated).view(R, 1)
    return found[:, : episodes + 1]
