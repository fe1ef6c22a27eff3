"""Proximal policy optimisation: several epochs over each rollout, but no action's odds are pushed far at a time.

    rho     = pi(a | s) / pi_old(a | s)                              pi_old: the policy that acted
    actor     -min(rho A, clamp(rho, 1 - c, 1 + c) A) - beta H(pi)   A of mean 0 and variance 1 in each minibatch
    critic    (target - v)^2 / 2                                     targets and A as the rollout ended

At rho = 1, so in the first step after a rollout, this is the policy gradient. Each replica shuffles its own steps.

Source: Schulman, Wolski, Dhariwal, Radford & Klimov, "Proximal policy optimization algorithms", arXiv:1707.06347, eq. 7
and algorithm 1. Departures: advantages are normalised, as in the authors' code; the critic is a network of its own with
its own step size and is not clipped, so the coefficient c1 of eq. 9 is not needed.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rl.explore import stream_keys
from rl.gradient import losses
from rl.gradient.a2c import ActorCritic, Batch
from rl.gradient.rollout import parts, shuffled


class PPO(ActorCritic):
    """PPO with the clipped surrogate.

    Args:
        epochs: times that each step of a rollout is learnt from.
        minibatches: into how many parts an epoch falls.
        clip_ratio: c.
        actor_critic: all that `rl.gradient.a2c.ActorCritic` takes.

    Raises:
        ValueError: for fewer than 1 epoch or minibatch; in `update`, for more minibatches than steps of a rollout.
    """

    STATE = (*ActorCritic.STATE, "shuffles")

    def __init__(self, *actor_critic: Any, epochs: int, minibatches: int, clip_ratio: float, **more: Any) -> None:
        if epochs < 1 or minibatches < 1:
            raise ValueError(f"{epochs} epochs of {minibatches} minibatches, expected 1 or more of both")
        super().__init__(*actor_critic, **more)
        self.epochs, self.minibatches, self.clip_ratio = epochs, minibatches, clip_ratio
        self.shuffle_key = stream_keys(self.seeds, "shuffle").to(self.device)
        self.shuffles = 0  # epochs learnt

    def learn(self, batch: Batch) -> dict[str, Float[Tensor, "R"]]:
        """All epochs.

        Returns means over minibatches: what `improve` says, and `kl`, how far the policy went from the one that acted
        (`rl.gradient.losses.approximate_kl`), and `clipped`, the share of steps whose ratio is beyond the clip.
        """
        with torch.no_grad():
            old = losses.log_prob(self.actor(batch.obs), batch.action)
        said = []
        for _ in range(self.epochs):
            order = shuffled(self.shuffle_key, self.shuffles, batch.action.shape[1])
            for index in parts(order, self.minibatches):
                said.append(self.step_on(batch.at(index), old.gather(1, index)))
            self.shuffles += 1
        return {name: torch.stack([one[name] for one in said]).mean(0) for name in said[0]}

    def step_on(self, batch: Batch, old: Float[Tensor, "R B"]) -> dict[str, Float[Tensor, "R"]]:
        """One minibatch, whose actions had the log-probabilities `old`."""
        logits = self.actor(batch.obs)
        log_pi = losses.log_prob(logits, batch.action)
        surrogate = losses.clipped_surrogate(log_pi, old, losses.normalised(batch.advantage), self.clip_ratio)
        with torch.no_grad():
            far = losses.beyond(log_pi, old, self.clip_ratio).float().mean(1)
            moved = {"kl": losses.approximate_kl(log_pi, old).mean(1), "clipped": far}
        return self.improve(batch, surrogate, logits) | moved
