"""Our deep Q-network with stable-baselines3's face, so that code written for theirs runs.

    model = DQN("MlpPolicy", "CartPole-v1", learning_rate=1e-3, seed=0).learn(20_000)
    mean, std = stable_baselines3.common.evaluation.evaluate_policy(model, model.get_env())
    model.save("pole")                          # a folder: JSON and safetensors, nothing is pickled
    action, _ = DQN.load("pole").predict(obs, deterministic=True)

Names and meanings are theirs where both have the thing; what is not given has our recipe's default, not theirs. It is
one replica: R at once, exact judgement and a run that resumes are `qx train dqn`'s.

Departures: `target_update_interval` counts updates, theirs counts steps. `train_freq` counts steps of all environments
together, theirs of each. A second `learn` with `reset_num_timesteps=False` goes on at the exploration and the step size
where the first ended, theirs stretches them; one that counts from 0 draws other coins than the first. `seed=None` is
seed 0. There are no `policy`, `replay_buffer` and no
hindsight.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import configure_logger, get_device, is_vectorized_observation
from stable_baselines3.common.vec_env import unwrap_vec_normalize

from envs.gymworlds import GymWorld, obs_shape
from lab import streams
from rl import saved, sb3_listeners, sb3_saved, sb3_settings
from rl.agents import recipe_of
from rl.explore import linear
from rl.sb3_spaces import read
from rl.sb3_worlds import VecWorlds, vec_env
from rl.train import TrainConfig, Trainer

AT_ONCE = 64  # turns of the loop between two looks at the clock


class DQN:
    """A deep Q-network of ours, used as one of theirs.

    Args:
        policy: "MlpPolicy" or "CnnPolicy"; either way the network follows the observation's shape.
        env: an environment, a VecEnv, or a Gymnasium id; None for a model that is only to predict.
        learning_rate: Adam's step size, constant where it is given.
        gamma: discount.
        exploration_fraction: share of the training over which the chance of a random action falls.
        policy_kwargs: `{"net_arch": [64, 64]}`, the widths of a perceptron's hidden layers.
        tensorboard_log: folder for TensorBoard.
        verbose: 1 prints their table of numbers.
        seed: of all that is drawn.
        device: "auto", "cpu" or "cuda".
        settings: any of `rl.sb3_settings.RENAMED`.

    Raises:
        ValueError: for actions or observations that it cannot use.
        TypeError: for a setting that it does not have.
    """

    def __init__(
        self,
        policy: str,
        env: Any,
        learning_rate: float | None = None,
        *,
        gamma: float = 0.99,
        exploration_fraction: float = 0.1,
        policy_kwargs: dict[str, Any] | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        **settings: Any,
    ) -> None:
        self.arguments = {
            "policy": policy,
            "gamma": gamma,
            "exploration_fraction": exploration_fraction,
            "policy_kwargs": policy_kwargs,
            "seed": seed,
            **settings,
            **({} if learning_rate is None else {"learning_rate": learning_rate}),
        }
        sb3_settings.check(self.arguments, settings)
        self.gamma, self.seed, self.verbose, self.tensorboard_log = gamma, seed or 0, verbose, tensorboard_log
        self.device = get_device(device)
        self.num_timesteps = self._total_timesteps = self._looks = self._episodes = self._schedule = self._learns = 0
        self.ep_info_buffer: deque[dict[str, Any]] = deque(maxlen=100)
        self.env: Any = None
        self.observation_space: Any = None
        self.action_space: Any = None
        self._trainer: Trainer | None = None
        self._logger: Logger = Logger(None, [])
        self._coin = torch.tensor(streams.derive(self.seed, "predict"))
        if env is not None:
            self.set_env(env)
            self.get_env().seed(self.seed)
            self._build()

    def learn(
        self,
        total_timesteps: int,
        callback: Any = None,
        log_interval: int | None = 4,
        tb_log_name: str = "DQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> DQN:
        """Learn for `total_timesteps` steps of all environments together, or until a callback says stop.

        Raises:
            ValueError: without an environment.
        """
        if self.env is None:
            raise ValueError("there is no environment to learn in: call set_env first")
        if reset_num_timesteps or not self._learns:
            self._begin(total_timesteps)
        if self._trainer is None:
            self._acting = VecWorlds(self.env, self.device)
            length = TrainConfig(worlds=self._acting.n, report_every=AT_ONCE * self._acting.n)
            self._trainer = Trainer(self.agent, self._acting, length)
        self._total_timesteps = total_timesteps = self.num_timesteps + total_timesteps
        if self.verbose or self.tensorboard_log:
            self._logger = configure_logger(self.verbose, self.tensorboard_log, tb_log_name, reset_num_timesteps)
        called = sb3_listeners.called(callback, progress_bar)
        called.init_callback(self)
        called.on_training_start(locals(), globals())
        called.on_rollout_start()
        trainer, acting, logged = self._trainer, self._acting, self._episodes
        turns = AT_ONCE if callback is None and not progress_bar else 1  # whoever listens hears every step
        while self.num_timesteps < total_timesteps:
            steps = acting.n * min(turns, -(-(total_timesteps - self.num_timesteps) // acting.n))
            reports = [said for _, said in trainer.run(trainer.step + steps)]  # two where a window ends between
            self.num_timesteps += steps
            self.ep_info_buffer.extend(acting.ended)
            self._episodes += len(acting.ended)
            acting.ended.clear()
            counts: dict[str, float] = {"time/episodes": self._episodes, "time/total_timesteps": self.num_timesteps}
            counts["rollout/exploration_rate"] = self.exploration_rate
            sb3_listeners.record(self._logger, reports, self.ep_info_buffer, counts)
            if log_interval is not None and self._episodes >= logged + log_interval:
                logged = self._episodes
                self._logger.dump(self.num_timesteps)
            called.update_locals({**locals(), **acting.said})
            if not called.on_step():
                break
        called.on_rollout_end()
        called.on_training_end()
        return self

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """An action for an observation, or for each of a batch; `state` comes back as it was.

        Where not `deterministic`, a random one now and then, as often as at this point of the training.
        """
        observation = np.asarray(observation)
        many = is_vectorized_observation(observation, self.observation_space)
        seen = read(self.observation_space, observation if many else observation[None]).to(self.device)
        chosen, _ = self.agent.policy(seen.unsqueeze(0), self.agent.memory(len(seen)))
        action = chosen[0].cpu()
        if not deterministic:
            action = self._explored(action)
        found = action.numpy() + int(self.action_space.start)
        return (found if many else found.squeeze(0)), state

    def save(self, path: str | Path) -> None:
        """Write a folder with all but the replay and the optimiser's moments (see `rl.sb3_saved`)."""
        spaces = (self.observation_space, self.action_space)
        so_far = (self.num_timesteps, self._schedule, self._learns)
        sb3_saved.write(Path(path), sb3_saved.Model(self.arguments, *spaces, *so_far), self.agent)

    @classmethod
    def load(cls, path: str | Path, env: Any = None, device: torch.device | str = "auto", **changed: Any) -> DQN:
        """The model that was saved, with other arguments where some are given; without `env` it can only predict.

        Raises:
            SavedError: for a folder without one, a damaged one, or one of another format.
        """
        found, payload, numbers = sb3_saved.read(Path(path))
        model = cls(env=None, device=device, **{**found.arguments, **changed})
        model.observation_space, model.action_space = found.observation, found.actions
        model.num_timesteps, model._schedule, model._learns = found.num_timesteps, found.schedule, found.learns
        model._build()
        with saved.readable(*(Path(path) / name for name in (sb3_saved.HEADER, sb3_saved.TENSORS))):
            saved.unpack(model.agent, payload, numbers)
        if env is not None:
            model.set_env(env)
        return model

    def set_env(self, env: Any) -> None:
        """Learn in another environment of the same spaces. Raises ValueError for other ones."""
        self.env = vec_env(env, self.observation_space)
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self._trainer = None

    def get_env(self) -> Any:
        """The VecEnv that it learns in, or None."""
        return self.env

    def get_vec_normalize_env(self) -> Any:
        """Their wrapper that normalises, where the environment has one, or None."""
        return None if self.env is None else unwrap_vec_normalize(self.env)

    @property
    def n_envs(self) -> int:
        """Environments that it learns in."""
        return 0 if self.env is None else self.env.num_envs

    @property
    def logger(self) -> Logger:
        """Where numbers go."""
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Send numbers elsewhere."""
        self._logger = logger

    @property
    def exploration_rate(self) -> float:
        """The chance of a random action by now."""
        return linear(self.config.epsilon, self.config.final_epsilon, self.config.exploration_steps, self.num_timesteps)

    def _build(self) -> None:
        """The agent, untrained, through our recipe; its coins are those of this beginning."""
        self.config = sb3_settings.config_of(self.arguments, self._schedule)
        shape = obs_shape(self.observation_space)
        world = GymWorld("an environment", "", self.gamma, int(self.action_space.n), shape)
        seed = self.seed if self._learns < 2 else streams.derive(self.seed, "learn", self._learns)
        self.agent: Any = recipe_of("dqn").build(self.config, world, 1, seed, self.device)

    def _begin(self, steps: int) -> None:
        """Count from 0, the schedules over the next `steps`; what was learned and seen stays."""
        state = self.agent.state_dict()
        self._schedule, self.num_timesteps, self._trainer = steps, 0, None
        self._learns += 1
        self._build()
        self.agent.load_state_dict({**state, "step": 0})

    def _explored(self, action: Int64[torch.Tensor, "B"]) -> Int64[torch.Tensor, "B"]:
        """The actions, each in place of a random one with the chance that there is now."""
        count = torch.arange(len(action))
        self._looks += 1
        key = streams.bits(self._coin, count)
        explores = streams.uniform(key, 2 * self._looks) < self.exploration_rate
        chance = (streams.uniform(key, 2 * self._looks + 1) * int(self.action_space.n)).long()
        return torch.where(explores, chance, action)
