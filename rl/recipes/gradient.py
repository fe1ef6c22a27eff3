"""Policy gradient: REINFORCE, actor-critic, PPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from envs.gymworlds import GymWorld
from envs.world import World
from rl.gradient.a2c import A2C, ActorCritic
from rl.gradient.ppo import PPO
from rl.gradient.reinforce import Reinforce, ReinforceBaseline
from rl.gradient.softmax import Softmax
from rl.recipe import Backbone, Recipe, gamma_of, network_for, replica_seeds, shape_of
from rl.recipes.rollouts import enough_steps


@dataclass(frozen=True)
class SoftmaxConfig:
    """What every policy gradient takes."""

    gamma: float | None = None
    """Discount; by default the world's own. Nearer to 1 looks further ahead, with more variance."""
    observation: str = "one-hot"
    """What the agent sees of a world that is a table: one-hot, coordinates, or one of planes, window-5 and rgb, which a
    CNN reads. Other worlds show what they show."""
    backbone: Backbone = "auto"
    """The networks: perceptrons, CNNs, the residual ones of IMPALA, which are larger and slower, or ones that plan over
    the planes of a grid; auto takes CNNs where the observation is a picture."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the perceptrons' hidden layers; a CNN has its own. Wider fits more and costs more; none at all, on
    one-hot states, is a table of preferences."""
    learning_rate: float = 3e-4
    """The actor's step size at first. Larger learns faster until the policy collapses."""
    final_rate: float = 1.0
    """What is left of all step sizes in the end, as a share. Smaller settles on one policy; 1 goes on learning."""
    learning_rate_steps: int = 50_000
    """Steps over which the step sizes fall to that share. Larger settles later."""
    clip: float = 0.5
    """Largest norm of a replica's gradient. Smaller is safer and slower."""


@dataclass(frozen=True)
class ReinforceConfig(SoftmaxConfig):
    """REINFORCE (Williams 1992): learns from whole episodes as they end."""

    hidden: tuple[int, ...] = ()
    """Widths of the perceptrons' hidden layers; a CNN has its own. Wider fits more and costs more; none at all, on
    one-hot states, is a table of preferences."""
    learning_rate: float = 0.1
    """The actor's step size at first. Larger learns faster until the policy collapses."""
    clip: float = 10.0
    """Largest norm of a replica's gradient; inf clips none. Smaller is safer and slower, and a bias: the rarest and
    largest returns count for less than their share, so that the step is no longer along the exact gradient."""
    horizon: int = 1000
    """Steps of an episode that are learnt from as one; a longer one is cut there. Larger is nearer to the truth where
    the world sets no limit, and takes more memory."""


@dataclass(frozen=True)
class ReinforceBaselineConfig(ReinforceConfig):
    """REINFORCE with a learned baseline (Sutton & Barto, sec. 13.4)."""

    critic_rate: float = 0.2
    """The baseline's step size at first. Larger follows the policy sooner, and its chance."""


@dataclass(frozen=True)
class A2CConfig(SoftmaxConfig):
    """Advantage actor-critic (Mnih et al. 2016), all worlds in step."""

    learning_rate: float = 1e-3
    """The actor's step size at first. Larger learns faster until the policy collapses."""
    critic_rate: float = 2e-3
    """The critic's step size at first. Larger follows the policy sooner, and its chance."""
    rollout: int = 8
    """Steps of each world between two updates. Larger sees further and learns less often."""
    lam: float = 1.0
    """Lambda of the advantages: 1 takes the longest returns that a rollout holds, 0 one step. Larger trusts the critic
    less."""
    entropy: float = 0.01
    """What a nat of the policy's entropy is worth. Larger goes on exploring."""


@dataclass(frozen=True)
class PPOConfig(A2CConfig):
    """Proximal policy optimisation with the clipped surrogate (Schulman et al. 2017)."""

    rollout: int = 64
    """Steps of each world between two rounds of learning. Larger sees further and learns less often."""
    lam: float = 0.95
    """Lambda of the advantages: 1 takes the longest returns that a rollout holds, 0 one step. Larger trusts the critic
    less."""
    entropy: float = 0.0
    """What a nat of the policy's entropy is worth. Larger goes on exploring."""
    epochs: int = 8
    """Times that each step is learnt from. Larger learns more from each, and overfits it sooner."""
    minibatches: int = 2
    """Into how many parts an epoch falls. Larger: more and noisier updates."""
    clip_ratio: float = 0.2
    """How far the odds of an action may go from what they were, as a share. Larger learns faster, less safely."""


def parts(
    config: SoftmaxConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str
) -> dict[str, Any]:
    """What `rl.gradient.softmax.Softmax` takes."""
    shape = shape_of(config, world)
    return {
        "actor": network_for(shape, config.hidden, world.actions, backbone=config.backbone),
        "obs_shape": shape,
        "seeds": replica_seeds(seed, replicas),
        "gamma": gamma_of(config, world),
        "rate": (config.learning_rate, config.final_rate * config.learning_rate),
        "rate_steps": config.learning_rate_steps,
        "clip": config.clip,
        "device": device,
    }


def critic_parts(config: ReinforceBaselineConfig | A2CConfig, world: World | GymWorld) -> dict[str, Any]:
    """What those with a critic take besides."""
    return {
        "critic": network_for(shape_of(config, world), config.hidden, 1, backbone=config.backbone),
        "critic_rate": (config.critic_rate, config.final_rate * config.critic_rate),
    }


def horizon_of(config: ReinforceConfig, world: World | GymWorld) -> int:
    """No more is kept than an episode can have."""
    return config.horizon if world.time_limit is None else min(config.horizon, world.time_limit)


def build_reinforce(
    config: ReinforceConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> Softmax:
    """R policies for `world`."""
    more = parts(config, world, replicas, seed, device)
    return Reinforce(horizon=horizon_of(config, world), **more)


def build_reinforce_baseline(
    config: ReinforceBaselineConfig,
    world: World | GymWorld,
    replicas: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> Softmax:
    """R policies and baselines for `world`."""
    more = parts(config, world, replicas, seed, device)
    return ReinforceBaseline(horizon=horizon_of(config, world), **critic_parts(config, world), **more)


def rollout_parts(config: A2CConfig, world: World | GymWorld) -> dict[str, Any]:
    """What `rl.gradient.a2c.ActorCritic` takes besides."""
    return {"rollout": config.rollout, "lam": config.lam, "entropy": config.entropy, **critic_parts(config, world)}


def build_a2c(
    config: A2CConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> ActorCritic:
    """R actors and critics for `world`."""
    more = parts(config, world, replicas, seed, device)
    return A2C(**rollout_parts(config, world), **more)


def build_ppo(
    config: PPOConfig, world: World | GymWorld, replicas: int, seed: int, device: torch.device | str = "cpu"
) -> ActorCritic:
    """R actors and critics for `world`."""
    more = parts(config, world, replicas, seed, device)
    how: dict[str, Any] = {"epochs": config.epochs, "minibatches": config.minibatches, "clip_ratio": config.clip_ratio}
    return PPO(**how, **rollout_parts(config, world), **more)


AGENTS: dict[str, Recipe] = {
    "reinforce": Recipe(ReinforceConfig, build_reinforce),
    "reinforce-baseline": Recipe(ReinforceBaselineConfig, build_reinforce_baseline),
    "a2c": Recipe(A2CConfig, build_a2c),
    "ppo": Recipe(PPOConfig, build_ppo, fits=enough_steps),
}

TUNED: dict[tuple[str, str], tuple[dict[str, Any], dict[str, Any]]] = {
    # What each of them reaches with ten seeds: docs/agents/policy-gradient.md.
    ("ppo", "CartPole-v1"): (
        {
            "gamma": 0.98,
            "rollout": 32,
            "epochs": 10,
            "minibatches": 1,
            "lam": 0.9,
            "learning_rate": 2e-3,
            "critic_rate": 4e-3,
            "final_rate": 0.05,
            "learning_rate_steps": 60_000,
        },
        {"steps": 60_000, "worlds": 8},
    ),
    ("ppo", "LunarLander-v3"): (
        {
            "gamma": 0.995,
            "rollout": 128,
            "epochs": 10,
            "minibatches": 8,
            "lam": 0.97,
            "entropy": 0.002,
            "learning_rate": 1e-3,
            "critic_rate": 3e-3,
            "final_rate": 0.1,
            "learning_rate_steps": 350_000,
        },
        {"steps": 350_000, "worlds": 16, "report_every": 2_000},
    ),
    ("ppo", "Acrobot-v1"): (
        {
            "lam": 0.94,
            "learning_rate": 2e-3,
            "critic_rate": 4e-3,
            "final_rate": 0.05,
            "learning_rate_steps": 100_000,
        },
        {"steps": 100_000, "worlds": 16},
    ),
}
