"""Our DQN with stable-baselines3's face: their helpers and callbacks use it, and it is our DQN under it."""

import json
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import ConvertCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from rl.saved import SavedError
from rl.sb3_face import DQN

AROUND = {"map": "S..\n.#.\n..G"}  # of the cliff: -1 a move, four moves home
QUICK: dict[str, Any] = {
    "learning_starts": 100, "buffer_size": 2_000, "train_freq": 4, "gradient_steps": 1, "batch_size": 32,
    "target_update_interval": 50, "gamma": 0.9, "exploration_fraction": 0.6,
}  # fmt: skip


def corridor(observation: str = "one-hot") -> gymnasium.Env[Any, Any]:
    return gymnasium.make("quincunx/Cliff-v0", overrides=AROUND, observation=observation, max_episode_steps=30)


@pytest.mark.parametrize("kind", [DQN, stable_baselines3.DQN])
def test_code_written_for_theirs_runs_with_ours(kind: Any, tmp_path: Path) -> None:
    """The same lines, either class: learn with a callback, evaluate, save, load, predict, learn on."""
    kwargs = {**QUICK, "policy_kwargs": {"net_arch": [32]}}
    model = kind("MlpPolicy", corridor(), learning_rate=2e-3, seed=1, verbose=0, device="cpu", **kwargs)
    seen: list[int] = []
    callback = EvalCallback(corridor(), eval_freq=1_000, n_eval_episodes=1, verbose=0, warn=False)
    model.learn(1_400, callback=[callback, ConvertCallback(_counting(seen))], log_interval=4, progress_bar=False)
    assert seen == list(range(1, 1_401))
    assert model.num_timesteps == 1_400
    assert callback.evaluations_timesteps == [] or callback.best_mean_reward > -30
    assert evaluate_policy(model, corridor(), 2, warn=False) == (-4.0, 0.0)
    model.save(tmp_path / "model")
    again = kind.load(tmp_path / "model", env=corridor(), device="cpu")
    obs = np.eye(9, dtype=np.float32)[:8] if model.observation_space.shape == (9,) else _every(model)
    expected, state = model.predict(obs, deterministic=True)
    assert state is None
    assert np.array_equal(again.predict(obs, deterministic=True)[0], expected)
    single, _ = again.predict(obs[0], deterministic=True)
    assert single == expected[0]
    assert np.shape(single) == ()
    again.learn(200, reset_num_timesteps=False)
    assert again.num_timesteps == 1_600


def _counting(seen: list[int]) -> Any:
    def called(inside: dict[str, Any], _: dict[str, Any]) -> bool:
        seen.append(inside["self"].num_timesteps)
        return True

    return called


def _every(model: Any) -> np.ndarray:
    return np.eye(model.observation_space.shape[0], dtype=np.float32)


def test_learning_that_goes_on_is_learning_at_once() -> None:
    """Where no schedule is stretched: the same weights, coins and numbers, though reports fall between the pieces."""
    still = {**QUICK, "exploration_initial_eps": 0.3, "exploration_final_eps": 0.3}

    def model() -> DQN:
        return DQN("MlpPolicy", corridor(), learning_rate=1e-3, seed=3, device="cpu", **still)

    whole, pieces = model().learn(300), model()
    for steps in (100, 70, 130):
        pieces.learn(steps, reset_num_timesteps=False)
    assert pieces.num_timesteps == whole.num_timesteps == 300
    assert torch.equal(pieces.agent.online.weights, whole.agent.online.weights)
    assert pieces.agent.updates > 0
    assert not torch.equal(model().agent.online.weights, whole.agent.online.weights)


def test_every_report_reaches_the_logger() -> None:
    """A window of 64 steps ends at 128, amid the 64 that follow the first hundred: two reports at once."""
    model = DQN("MlpPolicy", corridor(), seed=0, device="cpu", **QUICK)
    heard = stable_baselines3.common.logger.Logger(None, [])
    model.set_logger(heard)
    model.learn(100, log_interval=None)
    model.learn(64, log_interval=None, reset_num_timesteps=False)
    assert heard.name_to_value["train/loss"] > 0
    assert heard.name_to_value["time/total_timesteps"] == 164


def test_each_beginning_has_coins_of_its_own_also_after_a_load(tmp_path: Path) -> None:
    """A learner that only explores: what it does in the second `learn` is not what it did in the first."""
    chance = {**QUICK, "exploration_initial_eps": 1.0, "exploration_final_eps": 1.0, "learning_starts": 10_000}

    def actions(model: DQN, steps: int = 60) -> list[int]:
        model.learn(steps)
        return model.agent.replay.storage["action"][0, : len(model.agent.replay)][-steps:].tolist()

    model = DQN("MlpPolicy", corridor(), seed=0, device="cpu", **chance)
    first, second = actions(model), actions(model)
    model.save(tmp_path / "m")
    third = actions(model)
    again = DQN("MlpPolicy", corridor(), seed=0, device="cpu", **chance)
    assert [actions(again), actions(again)] == [first, second]
    assert actions(DQN.load(tmp_path / "m", env=corridor(), device="cpu")) == third
    for one, other in ((first, second), (second, third), (first, third)):
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 35  # 15 expected of 60, 3.4 a standard error


def test_a_callback_stops_the_training() -> None:
    model = DQN("MlpPolicy", corridor(), seed=0, device="cpu", **QUICK)
    model.learn(1_400, callback=StopTrainingOnMaxEpisodes(max_episodes=3))
    assert 3 <= model.num_timesteps <= 90
    assert len(model.ep_info_buffer) == 3


def test_a_model_is_a_function_of_its_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        model = DQN("MlpPolicy", make_vec_env(corridor, 4, seed=0), seed=seed, device="cpu", **QUICK)
        return model.learn(400).agent.online.weights.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_exploration_falls_over_its_share_and_predict_explores_as_often() -> None:
    model = DQN("MlpPolicy", corridor(), seed=0, device="cpu", **{**QUICK, "learning_starts": 5_000})
    rates: list[float] = []
    model.learn(200, callback=lambda inside, _: rates.append(model.exploration_rate) or True)
    assert rates[59] == pytest.approx(0.525)  # half way down from 1 to 0.05 at step 60 of 120
    assert rates[119:] == pytest.approx([0.05] * 81)
    model.num_timesteps = 60
    obs = np.zeros((4_000, model.observation_space.shape[0]), np.float32)
    greedy = model.predict(obs, deterministic=True)[0]
    share = (model.predict(obs)[0] != greedy).mean()
    assert share == pytest.approx(0.525 * 3 / 4, abs=0.04)  # of four actions one is the greedy one; 5 standard errors
    assert not np.array_equal(model.predict(obs)[0], model.predict(obs)[0])


def test_numbers_as_observations_and_actions_that_begin_elsewhere() -> None:
    env = corridor("index")
    model = DQN("MlpPolicy", env, seed=0, device="cpu", **QUICK).learn(150)
    assert model.agent.obs_shape == (env.observation_space.n,)
    shifted = gymnasium.wrappers.TransformAction(corridor(), lambda a: a - 5, gymnasium.spaces.Discrete(4, start=5))
    model = DQN("MlpPolicy", shifted, seed=0, device="cpu", **QUICK).learn(150)
    assert set(model.predict(_every(model))[0].tolist()) <= {5, 6, 7, 8}


def test_nothing_is_pickled_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    model = DQN("MlpPolicy", corridor(), device="cpu")
    model.save(tmp_path / "m")
    assert {file.name for file in (tmp_path / "m").iterdir()} == {"dqn.json", "dqn.safetensors"}
    with pytest.raises(ValueError, match="there is no environment to learn in"):
        DQN.load(tmp_path / "m", device="cpu").learn(5)
    with pytest.raises(ValueError, match=r"observations are Box.*\(4,\).*, expected Box"):
        DQN.load(tmp_path / "m", env="CartPole-v1", device="cpu")
    file = tmp_path / "m" / "dqn.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(SavedError, match="model format 2, expected 1"):
        DQN.load(tmp_path / "m")
    with pytest.raises(SavedError, match="no model can be read here"):
        DQN.load(tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 1, "actions": [4]}))
    with pytest.raises(SavedError, match=r"dqn\.json: does not fit this version"):
        DQN.load(tmp_path / "m")
    (tmp_path / "m" / "dqn.safetensors").write_bytes(b"no tensors")
    file.write_text(json.dumps({**json.loads(file.read_text()), "actions": [4, 0]}))
    with pytest.raises(SavedError, match=r"dqn\.safetensors: damaged"):
        DQN.load(tmp_path / "m")
    with pytest.raises(TypeError, match="this DQN has no setting 'tau', expected learning_rate"):
        DQN("MlpPolicy", corridor(), tau=0.5)
    with pytest.raises(ValueError, match="policy is 'MultiInputPolicy', expected one of 'MlpPolicy'"):
        DQN("MultiInputPolicy", corridor())
    with pytest.raises(ValueError, match=r"actions are Box.*, expected Discrete"):
        DQN("MlpPolicy", "Pendulum-v1")
