"""Runs of tabular Q-learning that live their turns one by one, or many at once; and equality, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from envs.catalog import load
from envs.mdp import TabularMDP
from envs.mixture import mix
from envs.simulator import Simulator
from envs.world import World
from lab import tree
from rl import train
from rl.tabular import compiled
from rl.tabular.q_learning import QLearning
from rl.train import TrainConfig, Trainer, world_keys
from tests.oracles.dp import random_mdp

Report = list[tuple[int, dict[str, Tensor]]]


def world(name: str) -> World:
    found = load(name)
    assert isinstance(found, World)
    return found


def uneven() -> TabularMDP:
    """Four outcomes at random, rewards that are no whole numbers, ends, and some states to start from."""
    mdp = random_mdp(5, states=6, actions=5, outcomes=4, ending=0.15)
    return replace(mdp, start=torch.tensor([0.1, 0.2, 0.0, 0.3, 0.4, 0.0], dtype=torch.float64))


def lake(keys: Tensor) -> Simulator:
    """Bins instead of a search, one start, and a time limit of 100."""
    return world("FrozenLake-v1").simulate(keys)


def hidden(keys: Tensor) -> Simulator:
    """States that look alike, and share a row of the table."""
    return world("t-maze").simulate(keys)


def searched(keys: Tensor) -> Simulator:
    return Simulator(uneven(), keys, observation=torch.arange(6), time_limit=7)


def mixed(keys: Tensor) -> Simulator:
    """Worlds of two kinds, each with rewards of its own."""
    zhao = replace(world("zhao-5x5"), time_limit=9)
    other = replace(zhao, mdp=replace(zhao.mdp, reward=zhao.mdp.reward * 0.3))
    return mix([zhao, other]).simulate(keys)


PLACES: list[Callable[[Tensor], Simulator]] = [lake, hidden, searched, mixed]


def trainer(
    place: Callable[[Tensor], Simulator], replicas: int, worlds: int, turns: int = 120, **changes: Any
) -> Trainer:
    """Reports that are not of equally many turns; an epsilon that falls through half of the run."""
    acting = place(world_keys(2, replicas, worlds))
    given = {"gamma": 0.9, "alpha": 0.8, "omega": 0.6, "epsilon": (1.0, 0.1), "epsilon_steps": turns * worlds // 2}
    agent = QLearning(acting.states, acting.actions, list(range(replicas)), **given | changes)
    return Trainer(agent, acting, TrainConfig(steps=turns * worlds, worlds=worlds, report_every=7 * worlds + 2))


def by_turns(run: Trainer, until: int | None = None) -> Report:
    """Reports of a run that lives every turn by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.compiled, "stride", lambda agent, worlds: None)
        return list(run.run(until))


def at_once(run: Trainer, until: int | None = None) -> Report:
    """Reports of a run that is known to live many turns at once."""
    assert compiled.stride(run.agent, run.worlds) is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_turn", lambda self: pytest.fail("a turn was lived by itself"))
        return list(run.run(until))


def check_same(one: Any, other: Any) -> None:
    """Equal trees, bit for bit: zeros of one sign, and nan where nan is."""
    (tensors, skeleton), (others, other_skeleton) = tree.split(one), tree.split(other)
    assert skeleton == other_skeleton
    for name, tensor in tensors.items():
        assert tensor.dtype == others[name].dtype, name
        assert tensor.contiguous().numpy().tobytes() == others[name].contiguous().numpy().tobytes(), name
