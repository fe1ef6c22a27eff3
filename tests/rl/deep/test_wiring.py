"""Every name of the family against a table of what it is made of, written out by hand."""

from __future__ import annotations

from typing import NamedTuple

import pytest
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
