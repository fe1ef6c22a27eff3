"""Names and configs: what is built from them, and what a person is told when they do not fit."""

import inspect

import pytest
import torch

from backbones.cnn import CNN
from backbones.mlp import MLP
from envs.catalog import load
from rl import agents
from rl.agents import AgentError, defaults
from rl.recipe import network_for
from rl.recipes.deep import DQNConfig, build_dqn
from rl.recipes.tabular import QLearningConfig
from rl.types import Agent


def test_every_agent_starts_from_its_defaults_on_a_table() -> None:
    lake = load("FrozenLake-v1")
    for name, recipe in agents.AGENTS.items():
        config, _ = defaults(name, "FrozenLake-v1")
        assert isinstance(config, recipe.config)
        agent = recipe.build(config, lake, 2, 0)
        assert isinstance(agent, Agent)
        assert agent.gamma == lake.discount
        assert agent.values(lake.observe(config.observation)).shape == (2, 16)
        assert (agent.memory(3) == 0).all()


def test_tuned_settings_name_fields_that_exist() -> None:
    for (agent, world), (ours, train) in agents.TUNED.items():
        config, loop = defaults(agent, world)
        assert all(getattr(config, name) == value for name, value in ours.items())
        assert all(getattr(loop, name) == value for name, value in train.items())


def test_every_choice_is_documented_for_the_command_line() -> None:
    for recipe in agents.AGENTS.values():
        for kind in recipe.config.__mro__[:-1]:
            source = inspect.getsource(kind)
            assert source.count('"""') == 2 * (1 + len(inspect.get_annotations(kind))), kind


def test_the_network_follows_the_observation() -> None:
    assert isinstance(network_for((7,), (8,), 3)(), MLP)
    assert isinstance(network_for((5, 4, 4), (8,), 3)(), CNN)
    assert network_for((4, 84, 84), (), 6)().head.output.in_features == 512


def test_replicas_start_apart_and_the_same_whoever_rides_along() -> None:
    pole = load("CartPole-v1")
    three, one = (build_dqn(DQNConfig(), pole, n, 7).online.weights.detach() for n in (3, 1))
    assert torch.equal(three[:1], one)
    assert not torch.equal(three[0], three[1])


def test_what_is_refused() -> None:
    lake, pole, tabular = load("FrozenLake-v1"), load("CartPole-v1"), agents.AGENTS["q-learning"]
    with pytest.raises(AgentError, match=r"agent 'dqm' is unknown, expected one of .*; did you mean 'dqn'\?"):
        defaults("dqm", "cliff")
    with pytest.raises(AgentError, match="needs a world that is a table, and CartPole-v1 is none: take dqn"):
        tabular.build(QLearningConfig(), pole, 1, 0)
    with pytest.raises(AgentError, match="cannot learn from 'planes'"):
        tabular.build(QLearningConfig(observation="planes"), lake, 1, 0)
    with pytest.raises(AgentError, match="no network reads a state's index"):
        build_dqn(DQNConfig(observation="index"), lake, 1, 0)
