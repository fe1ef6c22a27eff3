"""Names and configs: what is built from them, and what a person is told when they do not fit."""

import dataclasses
from pathlib import Path

import pytest
import torch

from backbones.cnn import CNN
from backbones.mlp import MLP
from envs.catalog import load
from rl import agents
from rl.agents import AgentError, DQNConfig, QLearningConfig, build_dqn, build_q_learning, defaults
from rl.types import Agent


def test_every_agent_starts_from_its_defaults_on_a_table() -> None:
    lake = load("FrozenLake-v1")
    for name, (kind, build) in agents.AGENTS.items():
        config, _ = defaults(name, "FrozenLake-v1")
        assert isinstance(config, kind)
        agent = build(config, lake, 2, 0)
        assert isinstance(agent, Agent)
        assert agent.gamma == lake.discount
        assert agent.q_values(lake.observe(config.observation)).shape == (2, 16, 4)


def test_tuned_settings_name_fields_that_exist() -> None:
    for (agent, world), (ours, train) in agents.TUNED.items():
        config, loop = defaults(agent, world)
        assert all(getattr(config, name) == value for name, value in ours.items())
        assert all(getattr(loop, name) == value for name, value in train.items())


def test_every_choice_is_documented_for_the_command_line() -> None:
    for kind in (QLearningConfig, DQNConfig):
        source = Path(agents.__file__).read_text().split(f"class {kind.__name__}")[1].split("\n\n\n")[0]
        assert source.count('"""') == 2 * (1 + len(dataclasses.fields(kind)))


def test_the_network_follows_the_observation() -> None:
    assert isinstance(agents.q_network((7,), (8,), 3)(), MLP)
    assert isinstance(agents.q_network((5, 4, 4), (8,), 3)(), CNN)
    assert agents.q_network((4, 84, 84), (), 6)().head.output.in_features == 512


def test_replicas_start_apart_and_the_same_whoever_rides_along() -> None:
    pole = load("CartPole-v1")
    three, one = (build_dqn(DQNConfig(), pole, n, 7).online.weights for n in (3, 1))
    assert torch.equal(three[:1], one)
    assert not torch.equal(three[0], three[1])


def test_what_is_refused() -> None:
    lake, pole = load("FrozenLake-v1"), load("CartPole-v1")
    with pytest.raises(
        AgentError, match=r"agent 'dqm' is unknown, expected one of q-learning, dqn; did you mean 'dqn'\?"
    ):
        defaults("dqm", "cliff")
    with pytest.raises(AgentError, match="needs a world that is a table, and CartPole-v1 is none: take dqn"):
        build_q_learning(QLearningConfig(), pole, 1, 0)
    with pytest.raises(AgentError, match="cannot learn from 'planes'"):
        build_q_learning(QLearningConfig(observation="planes"), lake, 1, 0)
    with pytest.raises(AgentError, match="cannot read a state's index"):
        build_dqn(DQNConfig(observation="index"), lake, 1, 0)
