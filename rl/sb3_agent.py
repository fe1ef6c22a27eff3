"""R policies of stable-baselines3 as one agent of ours, to be judged, saved and played like any other.

It does not learn by `update`: `rl.sb3_train` lets the library's own algorithms train its policies.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from jaxtyping import Float, Float32, Int64, Shaped
from stable_baselines3 import A2C, DQN, PPO
from torch import Tensor, nn

from backbones import cnn
from backbones.mlp import MLP
from envs.gymworlds import GymWorld
from envs.types import Worlds
from envs.world import World
from lab import streams
from rl.recipe import AgentError, gamma_of, network_for, replica_seeds, shape_of
from rl.sb3 import Make, policy_kwargs
from rl.sb3_learners import Sb3A2CConfig, Sb3Config, Sb3DQNConfig, Sb3PPOConfig
from rl.sb3_spaces import space_of
from rl.sb3_worlds import WorldsVecEnv
from rl.types import Transition, nothing

HIDDEN = (64, 64)


class Ambient:
    """The global generators, lent to a library that seeds and draws from them, and put back as they were.

    What the library left behind is kept, and given to it again the next time.
    """

    def __init__(self) -> None:
        self._theirs: Any = None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """What runs inside has generators of its own, which begin unseeded."""
        ours = _generators()
        if self._theirs is not None:
            _put(self._theirs)
        try:
            yield
        finally:
            self._theirs = _generators()
            _put(ours)


def _generators() -> tuple[Any, ...]:
    every = (torch.default_generator, *torch.cuda.default_generators)
    return random.getstate(), np.random.get_state(), [one.get_state() for one in every]  # noqa: NPY002  # to keep


def _put(states: tuple[Any, ...]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002  # as it was
    for one, state in zip((torch.default_generator, *torch.cuda.default_generators), states[2], strict=False):
        one.set_state(state)


class Sb3Agent:
    """R policies side by side; an `rl.types.Agent` but for `act` and `update`, for the library trains them itself.

    It is judged by the likeliest action, as `evaluate_policy` of stable-baselines3 does (`deterministic=True`).
    """

    def __init__(self, policies: Sequence[Any], gamma: float, device: torch.device | str) -> None:
        self.policies, self.gamma = list(policies), gamma
        self.replicas, self.device = len(self.policies), torch.device(device)

    def memory(self, worlds: int) -> Float32[Tensor, "R W 0"]:
        return nothing(self.replicas, worlds, self.device)

    def act(
        self, obs: Shaped[Tensor, "R W *shape"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        return self.policy(obs, memory)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        raise NotImplementedError("stable-baselines3 trains its policies itself: expected rl.sb3_train.Sb3Trainer")

    @torch.no_grad()
    def policy(
        self, obs: Shaped[Tensor, "R M *shape"], memory: Float32[Tensor, "R M 0"]
    ) -> tuple[Int64[Tensor, "R M"], Float32[Tensor, "R M 0"]]:
        return self.scores(obs).argmax(-1), memory

    @torch.no_grad()
    def scores(self, obs: Shaped[Tensor, "R M *shape"]) -> Float[Tensor, "R M A"]:
        """What the actions are chosen by: action values of a DQN, logits of the others."""
        return torch.stack([_scores(one, seen) for one, seen in zip(self._judged(), obs, strict=True)])

    @torch.no_grad()
    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]:
        space = self.policies[0].observation_space
        alone = 0 if isinstance(space, spaces.Discrete) else len(space.shape)
        each = obs if obs.ndim == alone + 2 else obs.expand(self.replicas, *obs.shape)
        return torch.stack([_value(one, seen) for one, seen in zip(self._judged(), each, strict=True)])

    def _judged(self) -> list[Any]:
        for one in self.policies:
            one.set_training_mode(False)
        return self.policies

    def state_dict(self) -> dict[str, Any]:
        """`weights`: each tensor of a policy with a leading R."""
        every = [one.state_dict() for one in self.policies]
        return {"weights": {name: torch.stack([own[name] for own in every]) for name in every[0]}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for r, one in enumerate(self.policies):
            one.load_state_dict({name: each[r] for name, each in state["weights"].items()})


def _scores(policy: Any, obs: Tensor) -> Float[Tensor, "M A"]:
    if hasattr(policy, "q_net"):
        return policy.q_net(obs)
    features = policy.extract_features(obs, policy.pi_features_extractor)
    return policy.action_net(policy.mlp_extractor.forward_actor(features))


def _value(policy: Any, obs: Tensor) -> Float[Tensor, "M"]:
    return policy.q_net(obs).amax(-1) if hasattr(policy, "q_net") else policy.predict_values(obs).squeeze(-1)


def untrained(
    config: Sb3Config, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> Sb3Agent:
    """R policies as they begin."""
    few = world.simulate(streams.keys(0, "shape", 1), **_seen(config, world))
    policies = []
    for own in replica_seeds(seed, replicas):
        with Ambient().lent():
            policies.append(algorithm(config, world, few, own, steps=1, device=device, memory=False).policy)
    return Sb3Agent(policies, gamma_of(config, world), device)


def algorithm(
    config: Sb3Config,
    world: World | GymWorld,
    worlds: Worlds,
    seed: int,
    *,
    steps: int,
    device: torch.device | str = "cpu",
    memory: bool = True,
) -> Any:
    """An algorithm of stable-baselines3 in `worlds`, with our backbone. It seeds the global generators (see `Ambient`).

    Args:
        config: which, and its settings.
        world, worlds: the world, and as many of it as it acts in at once.
        seed: of all that it draws.
        steps: how long it will learn.
        device: where its networks lie.
        memory: give a DQN its replay; else room for one transition.

    Raises:
        AgentError: for a backbone that cannot read what is seen.
    """
    space = space_of(world, config.observation)
    own = seed % 2**32  # NumPy takes no more
    shared: dict[str, Any] = {
        "policy_kwargs": policy_kwargs(backbone(config, world), config.features, seed=seed),
        "gamma": gamma_of(config, world),
        "seed": own,
        "device": str(device),
        "verbose": 0,
    }
    env = WorldsVecEnv(worlds, space)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"stable_baselines3(\..*)?")  # advice on its own defaults
        if isinstance(config, Sb3DQNConfig):
            return DQN(
                "MlpPolicy",
                env,
                learning_rate=config.learning_rate,
                batch_size=config.batch_size,
                buffer_size=config.capacity if memory else worlds.n,
                learning_starts=config.learning_starts,
                train_freq=max(1, config.train_every // worlds.n),
                gradient_steps=config.gradient_steps,
                target_update_interval=config.target_every,
                exploration_fraction=min(1.0, config.exploration_steps / steps),
                exploration_final_eps=config.final_epsilon,
                **shared,
            )
        if isinstance(config, Sb3PPOConfig):
            return PPO(
                "MlpPolicy",
                env,
                learning_rate=config.learning_rate,
                n_steps=config.rollout,
                batch_size=min(config.batch_size, config.rollout * worlds.n),
                n_epochs=config.epochs,
                gae_lambda=config.lam,
                ent_coef=config.entropy,
                clip_range=config.clip_range,
                **shared,
            )
        assert isinstance(config, Sb3A2CConfig)
        return A2C(
            "MlpPolicy",
            env,
            learning_rate=config.learning_rate,
            n_steps=config.rollout,
            ent_coef=config.entropy,
            **shared,
        )


def backbone(config: Sb3Config, world: World | GymWorld) -> Make:
    """What makes the network that reads observations. Raises AgentError for one that cannot."""
    shape = shape_of(config, world)
    if config.backbone == "mlp" or (config.backbone == "auto" and len(shape) < 3):
        return _mlp
    if len(shape) != 3:
        seen = f"{list(shape)} numbers" if shape else "a state's index"
        raise AgentError(f"--backbone {config.backbone} reads planes or pictures, and {world.name} shows {seen}")
    return cnn.impala if config.backbone == "impala" else _cnn


def _mlp(shape: Sequence[int], outputs: int) -> nn.Module:
    return MLP(math.prod(shape), HIDDEN, outputs)


def _cnn(shape: Sequence[int], outputs: int) -> nn.Module:
    return network_for(shape, HIDDEN, outputs)()


def _seen(config: Sb3Config, world: World | GymWorld) -> dict[str, Any]:
    return {"observation": config.observation} if isinstance(world, World) else {}
