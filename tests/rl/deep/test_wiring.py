"""Every name of the family against a table of what it is made of, written out by hand."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import nn

from backbones.dueling import Dueling
from backbones.mlp import MLP
from backbones.noisy import Noisy
from envs.catalog import load
from rl.deep.distributional import Categorical, Quantiles
from rl.deep.dqn import DQN
from rl.deep.losses import Expected, Successor, online_chooses, target_chooses
from rl.deep.prioritised import PrioritisedReplay
from rl.deep.replay import Replay
from rl.recipes.deep import AGENTS
from rl.train import TrainConfig, Trainer, world_keys


class Made(NamedTuple):
    """What an agent is put together from, with its defaults."""

    method: type
    atoms: int
    successor: Successor
    network: tuple[type[nn.Module], ...]
    """From the outside in."""
    outputs: int
    """Of the innermost, for two actions."""
    replay: type
    n: int
    epsilon: tuple[float, float]


USUAL, NONE = (1.0, 0.05), (0.0, 0.0)
TABLE = {
    "dqn": Made(Expected, 1, target_chooses, (MLP,), 2, Replay, 1, USUAL),
    "double-dqn": Made(Expected, 1, online_chooses, (MLP,), 2, Replay, 1, USUAL),
    "dueling-dqn": Made(Expected, 1, online_chooses, (Dueling, MLP), 3, Replay, 1, USUAL),
    "prioritised-dqn": Made(Expected, 1, online_chooses, (MLP,), 2, PrioritisedReplay, 1, USUAL),
    "n-step-dqn": Made(Expected, 1, target_chooses, (MLP,), 2, Replay, 3, USUAL),
    "noisy-dqn": Made(Expected, 1, target_chooses, (Noisy,), 2, Replay, 1, NONE),
    "c51": Made(Categorical, 51, target_chooses, (MLP,), 102, Replay, 1, USUAL),
    "qr-dqn": Made(Quantiles, 32, target_chooses, (MLP,), 64, Replay, 1, USUAL),
    "rainbow": Made(Categorical, 51, online_chooses, (Dueling, Noisy), 153, PrioritisedReplay, 3, NONE),
}


def test_the_table_names_all() -> None:
    assert set(TABLE) == set(AGENTS)


@pytest.mark.parametrize("name", TABLE)
def test_an_agent_is_made_of_what_the_table_says(name: str) -> None:
    recipe, wanted = AGENTS[name], TABLE[name]
    ends = {"low": 0.0, "high": 100.0} if wanted.method is Categorical else {}
    agent = recipe.build(recipe.config(**ends), load("CartPole-v1"), 1, 0)
    assert isinstance(agent, DQN)
    network, found = agent.online.network.template, []
    while isinstance(network, nn.Module):
        found.append(type(network))
        inner = network.body if isinstance(network, Dueling) else None
        last, network = network, inner
    outputs = last.layers[-1].mean.out_features if isinstance(last, Noisy) else last.output.out_features
    made = Made(
        type(agent.method),
        agent.method.atoms,
        agent.successor,
        tuple(found),
        outputs,
        type(agent.replay),
        agent.steps.n,
        agent.explorer.range,
    )
    assert made == wanted


@pytest.mark.parametrize("name", ["prioritised-dqn", "rainbow"])
def test_what_surprised_in_an_update_is_what_its_places_are_ranked_by(name: str) -> None:
    """One batch, spied on its way out: the tree holds (surprise + 1e-6)^alpha there, and what it had elsewhere."""
    world = load("zhao-2x2")
    config = AGENTS[name].config(
        batch_size=4, learning_starts=64, gradient_steps=1, learning_rate=0.0, final_learning_rate=0.0
    )
    agent = AGENTS[name].build(config, world, 1, 0)
    loop = Trainer(
        agent, world.simulate(world_keys(0, 1, 8), observation=config.observation), TrainConfig(steps=56, worlds=8)
    )
    list(loop.run())
    replay = agent.replay
    assert isinstance(replay, PrioritisedReplay)
    places = torch.arange(len(replay))[None]
    before = replay.tree.at(places).clone()
    batch = next(iter(replay.sample(1, 4, agent.updates)))
    loss, _ = agent.losses(batch, agent.updates)  # the weights do not move, so it is the update's own
    agent.learn()
    expected = before.clone()
    expected[0, batch.place[0]] = ((agent.method.surprise(loss.detach()).double() + 1e-6) ** config.priority)[0]
    torch.testing.assert_close(replay.tree.at(places), expected)
    assert (expected != before).any()
