"""stable-baselines3 trains on our worlds unchanged, and reaches what dynamic programming says can be reached."""

from typing import Any

import gymnasium
import pytest
import torch
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import envs
from rl import dp

AROUND = {"map": "S..\n.#.\n..G"}  # of the cliff: -1 a move, four moves home
SMALL = {"policy_kwargs": {"net_arch": [32]}, "seed": 0, "device": "cpu"}
SETTINGS: dict[str, tuple[Any, dict[str, Any], int]] = {
    "dqn": (
        DQN,
        {
            "learning_starts": 100,
            "buffer_size": 2_000,
            "target_update_interval": 100,
            "exploration_fraction": 0.8,
            "learning_rate": 3e-3,
        },
        2_000,
    ),
    "ppo": (PPO, {"n_steps": 128, "n_epochs": 5, "gamma": 0.95, "learning_rate": 1e-2, "ent_coef": 0.02}, 3_000),
}


def make(observation: str) -> gymnasium.Env:
    return gymnasium.make("quincunx/Cliff-v0", overrides=AROUND, observation=observation, max_episode_steps=30)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_finds_the_best_there_is(name: str):
    algorithm, settings, steps = SETTINGS[name]
    mdp = envs.load("cliff", AROUND).mdp
    optimum = float(dp.value_iteration(mdp, 1.0).values @ mdp.start)
    model = algorithm("MlpPolicy", make("one-hot"), **settings, **SMALL)
    model.learn(steps)
    assert evaluate_policy(model, make("one-hot"), 1, warn=False)[0] == optimum == -4


@pytest.mark.parametrize("name", ["dqn", "ppo"])
def test_it_reads_pictures(name: str):
    """rgb is what its CNN takes: bytes, channels first, no smaller than 36 pixels. Nothing is rescaled twice."""
    algorithm, settings = {"dqn": (DQN, {"learning_starts": 10}), "ppo": (PPO, {"n_steps": 16, "batch_size": 16})}[name]
    model = algorithm("CnnPolicy", make("rgb"), seed=0, device="cpu", **settings)
    model.learn(32)
    obs, _ = make("rgb").reset(seed=0)
    seen = model.policy.extract_features(model.policy.obs_to_tensor(obs)[0], *features_extractor(model))
    assert seen.shape == (1, 512)
    assert torch.isfinite(seen).all()


def features_extractor(model: Any) -> list[Any]:
    return [model.q_net.features_extractor] if isinstance(model, DQN) else []


@pytest.mark.parametrize("observation", ["index", "coordinates", "planes"])
def test_it_takes_many_worlds_and_every_kind_of_observation(observation: str):
    many = make_vec_env("quincunx/KeyDoor-v0", 3, seed=0, env_kwargs={"observation": observation})
    model = PPO("MlpPolicy", many, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu")
    model.learn(24)
    assert model.num_timesteps == 24
