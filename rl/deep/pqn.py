"""Parallel Q-networks: Q-learning without replay and without a target network, on many worlds at once.

    v_t  = max_a q(s'_t, a)                                       of the step's true successor
    G_t  = r_t + discount_t [(1 - lam) v_t + lam G_(t+1)],        v_t in place of G_(t+1) where t is cut: by the end of
                                                                  its episode, or of the rollout
    loss = (G_t - q(s_t, a_t))^2 / 2

Every T steps of its W worlds a replica computes G once, by the network as it is, and then learns from all W T steps,
shuffled and in minibatches, `epochs` times; then they are forgotten. What the target network was for, layer
normalisation does: with it the error of Q-learning off its policy is bounded (Gallici et al. 2024, sec. 3 and 4).

Source: Gallici, Fellows, Ellis, Pou, Masmitja, Foerster & Martin, "Simplifying deep temporal difference learning", ICLR
2025, sec. 5, algorithm 1; Peng's Q(lambda), which does not ask whether an action was greedy: Peng & Williams 1996;
RAdam: Liu et al., "On the variance of the adaptive learning rate", ICLR 2020.
Departures: a time limit bootstraps from the true successor (the authors' code takes it for an end); v_t is computed
when the rollout is full, which is the same number, for the network does not change while it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor, nn

from rl import state, td
from rl.deep.described import described
from rl.deep.learner import Learner
from rl.explore import EpsilonGreedy, stream_keys
from rl.gradient.rollout import Rollout, parts, shuffled
from rl.returns import lambda_returns
from rl.types import Transition, nothing

STATE = ("online", "rollout", "step", "shuffles")


def radam(weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Adam that holds back while its estimate of the gradient's variance rests on few of them (Liu et al. 2020)."""
    return torch.optim.RAdam(weights, lr=rate)


class PQN:
    """R parallel Q-networks; observations are whatever the network reads.

    Args:
        network: constructs one Q-network, `[B, *shape]` -> `[B, A]`, with layer normalisation.
        obs_shape: shape of one observation.
        seeds: one for each replica; all that replica r draws is from seeds[r].
        gamma: discount.
        lam: of the returns.
        rollout: T, steps of each world between two rounds of learning.
        epochs: times that each step of a rollout is learnt from.
        minibatches: into how many parts an epoch falls.
        learning_rate: (start, end) of RAdam's step size, linear over `learning_rate_steps` steps of each replica.
        epsilon: (start, end) of the chance of a random action, linear over `epsilon_steps` steps of each replica.
        clip: largest norm of a replica's gradient.
        device: where all of it lies.

    Raises:
        ValueError: for fewer than 1 epoch or minibatch; in `update`, for more minibatches than steps of a rollout.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        obs_shape: tuple[int, ...],
        seeds: Sequence[int],
        *,
        gamma: float,
        lam: float,
        rollout: int,
        epochs: int,
        minibatches: int,
        learning_rate: tuple[float, float],
        learning_rate_steps: int,
        epsilon: tuple[float, float],
        epsilon_steps: int,
        clip: float,
        device: torch.device | str = "cpu",
    ) -> None:
        if epochs < 1 or minibatches < 1:
            raise ValueError(f"{epochs} epochs of {minibatches} minibatches, expected 1 or more of both")
        self.replicas, self.device = len(seeds), torch.device(device)
        self.obs_shape, self.gamma, self.lam = obs_shape, gamma, lam
        self.epochs, self.minibatches = epochs, minibatches
        rates: dict[str, Any] = {"rate": learning_rate, "rate_steps": learning_rate_steps, "clip": clip}
        self.online = Learner(network, seeds, **rates, optimizer=radam, device=device)
        self.rollout = Rollout(rollout, device)
        self.explorer = EpsilonGreedy(seeds, epsilon, epsilon_steps, device)
        self.shuffle_key = stream_keys(seeds, "shuffle").to(device)
        self.step = 0  # steps of each replica seen
        self.shuffles = 0  # epochs learnt

    def memory(self, worlds: int) -> Float32[Tensor, "R W 0"]:
        return nothing(self.replicas, worlds, self.device)

    @torch.no_grad()
    def act(
        self, obs: Shaped[Tensor, "R W *shape"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        return self.explorer.act(self.online(obs), self.step), memory

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Remember the step; every T-th, learn, and forget.

        Returns `epsilon`, and after learning the means over all minibatches of `loss` and `gradient_norm` (before
        clipping), and what the rollout looked like: mean and extremes of `batch_reward`, `target`, and `q`, of the
        actions taken, each as it was first learnt from.
        """
        self.rollout.add(transition)
        metrics = {"epsilon": torch.full((self.replicas,), self.explorer.epsilon(self.step), device=self.device)}
        worlds = transition.action.shape[1]
        self.step += worlds
        if self.step // worlds % self.rollout.steps == 0:
            metrics |= self._learn()
            self.rollout.forget(torch.ones_like(transition.last))
        return metrics

    def _learn(self) -> dict[str, Tensor]:
        obs, action = self.rollout["obs"].flatten(1, 2), self.rollout["action"].flatten(1, 2)
        target = self.targets().flatten(1, 2)  # [R, W T]
        row = torch.arange(self.replicas, device=self.device)[:, None]
        losses, norms, values = [], [], torch.empty_like(target)
        for epoch in range(self.epochs):
            for i in parts(shuffled(self.shuffle_key, self.shuffles, action.shape[1]), self.minibatches):
                q = td.of(self.online(obs[row, i]), action[row, i])
                loss = ((target[row, i] - q) ** 2 / 2).mean(1)  # [R]
                norms.append(self.online.step(loss, self.step))
                losses.append(loss.detach())
                if epoch == 0:
                    values[row, i] = q.detach()
            self.shuffles += 1
        mean = {"loss": torch.stack(losses).mean(0), "gradient_norm": torch.stack(norms).mean(0)}
        return mean | described({"batch_reward": self.rollout["reward"].flatten(1), "q": values, "target": target})

    @torch.no_grad()
    def targets(self) -> Float[Tensor, "R W T"]:
        """G of each step of the rollout."""
        held = self.rollout
        v = self.online(held["next_obs"].flatten(1, 2)).amax(-1).view_as(held["reward"])
        return lambda_returns(held["reward"], self.gamma * held["discount"], v, held["last"], self.lam)

    @torch.no_grad()
    def q_values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M A"]:
        """Action values of observations `[M, *shape]`, or of each replica's own `[R, M, *shape]`."""
        if obs.ndim == len(self.obs_shape) + 1:
            obs = obs.expand(self.replicas, *obs.shape)
        return self.online(obs)

    def policy(
        self, obs: Shaped[Tensor, "R M *shape"], memory: Float32[Tensor, "R M 0"]
    ) -> tuple[Int64[Tensor, "R M"], Float32[Tensor, "R M 0"]]:
        return self.q_values(obs).argmax(-1), memory

    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]:
        return self.q_values(obs).amax(-1)

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, STATE, saved)
