"""stable-baselines3 learns with our backbones as its eyes, and reaches what dynamic programming says can be reached."""

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from torch import nn

import envs
from backbones import cnn
from backbones.initialise import build
from backbones.mlp import MLP
from backbones.vision import ViT
from lab import streams
from rl import dp
from rl.sb3 import Features, Make, policy_kwargs

AROUND = {"map": "S..\n.#.\n..G"}  # of the cliff: -1 a move, four moves home


def make(observation: str) -> gymnasium.Env:
    return gymnasium.make("quincunx/Cliff-v0", overrides=AROUND, observation=observation, max_episode_steps=30)


def mlp(shape: Sequence[int], outputs: int) -> nn.Module:
    return MLP(math.prod(shape), [32], outputs)


def impala(shape: Sequence[int], outputs: int) -> nn.Module:
    return cnn.Impala(shape, [8, 16], [], outputs)


def vit(shape: Sequence[int], outputs: int) -> nn.Module:
    channels, height, width = shape
    return ViT((height, width), channels, 1, 16, 1, 2, outputs)


def dqn(observation: str, kwargs: dict[str, Any]) -> Any:
    settings = {"learning_starts": 100, "buffer_size": 2_000, "target_update_interval": 50, "learning_rate": 1e-3}
    return DQN("MlpPolicy", make(observation), policy_kwargs=kwargs, seed=0, device="cpu", gamma=0.9, **settings)


def ppo(observation: str, kwargs: dict[str, Any]) -> Any:
    many = make_vec_env(lambda: make(observation), 16, seed=0)
    settings = {"n_steps": 16, "n_epochs": 6, "batch_size": 128, "ent_coef": 0.02, "vf_coef": 0.05}
    return PPO("MlpPolicy", many, 2e-3, policy_kwargs=kwargs, seed=0, device="cpu", gamma=0.9, **settings)


@pytest.mark.parametrize(
    ("learner", "backbone", "observation"),
    [(dqn, mlp, "one-hot"), (ppo, cnn.grid, "planes"), (ppo, impala, "planes"), (ppo, vit, "planes")],
)
def test_it_finds_the_best_there_is(learner: Any, backbone: Make, observation: str) -> None:
    """Within 15,000 steps; a network that sees nothing never does."""
    mdp = envs.load("cliff", AROUND).mdp
    optimum = float(dp.value_iteration(mdp, 1.0).values @ mdp.start)
    model = learner(observation, policy_kwargs(backbone, features=32, seed=0))
    found, steps = -math.inf, 0
    while found < optimum and steps < 15_000:
        model.learn(1_000, reset_num_timesteps=steps == 0)
        steps = model.num_timesteps
        found = evaluate_policy(model, make(observation), 1, warn=False)[0]
    assert found == optimum == -4


@pytest.mark.parametrize("algorithm", [DQN, PPO, A2C])
def test_the_weights_are_ours(algorithm: Any) -> None:
    """From the seed, through our initialiser; no algorithm's rule replaces them, nor does its own seed matter."""
    ours = build(lambda: cnn.grid((5, 3, 3), 8), streams.generator(3, "features"))
    for seed in (0, 1):
        kwargs = policy_kwargs(cnn.grid, features=8, seed=3)
        policy = algorithm("MlpPolicy", make("planes"), policy_kwargs=kwargs, seed=seed, device="cpu").policy
        extractors = [m for m in policy.modules() if isinstance(m, Features)]
        assert len(extractors) == (2 if algorithm is DQN else 1)  # DQN: online and target
        for extractor in extractors:
            for (name, weight), own in zip(extractor.network.named_parameters(), ours.parameters(), strict=True):
                assert torch.equal(weight, own), name


def test_learning_reaches_the_backbone() -> None:
    model = PPO(
        "MlpPolicy", make("planes"), n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu",
        policy_kwargs=policy_kwargs(vit, features=8, seed=0),
    )  # fmt: skip
    before = [p.clone() for p in model.policy.features_extractor.parameters()]
    model.learn(32)
    changed = [not torch.equal(p, q) for p, q in zip(model.policy.features_extractor.parameters(), before, strict=True)]
    assert all(changed)


@pytest.mark.parametrize(
    ("space", "shape"),
    [
        (spaces.Discrete(7), (7,)),
        (spaces.MultiDiscrete([3, 4]), (7,)),
        (spaces.Box(0, 1, (5, 3, 3), np.float32), (5, 3, 3)),
        (spaces.Box(-1, 1, (4,), np.float32), (4,)),
    ],
)
def test_a_backbone_is_told_the_shape_it_will_see(space: spaces.Space[Any], shape: tuple[int, ...]) -> None:
    told: list[tuple[int, ...]] = []

    def spy(shape: Sequence[int], outputs: int) -> nn.Module:
        told.append(tuple(shape))
        return mlp(shape, outputs)

    features = Features(space, spy, 6, seed=0)
    assert told == [shape]
    assert features.features_dim == 6
    assert features(torch.zeros(2, *shape)).shape == (2, 6)


def test_several_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="a backbone reads one tensor, and observations here are Dict"):
        Features(spaces.Dict({"a": spaces.Discrete(2)}), mlp, 4, seed=0)
