"""Deep Q-networks: Q-learning on a network, stabilised by replay and by a target network that lags behind.

    theta, theta-                               weights of the online network, and older ones: the target network
    y = r + discount max_a q(s', a; theta-)     the target: no gradient, discount 0 only at a true end
    loss = huber(y - q(s, a; theta))            one for each sample; Adam on each replica's mean over its batch

R replicas of network, optimiser and buffer are one program: the weights are a matrix `[R, P]` (`backbones.replicas`),
each replica's gradient is clipped by its own norm, and a replica's draws come from its own key. So replica r learns the
same whichever others ride along.

Source: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015; double: van Hasselt,
Guez & Silver, AAAI 2016. Departures: Adam (Kingma & Ba 2015) in place of RMSProp, as has become usual; the gradient's
norm is clipped besides the error (Huber's loss is their clipping of the error to [-1, 1]).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor, nn

from rl import state, td
from rl.deep.learner import Learner
from rl.deep.replay import Batch, Replay
from rl.explore import EpsilonGreedy, stream_keys
from rl.types import Transition, nothing

STATE = ("online", "target_weights", "replay", "step", "updates")

Values = Callable[[Tensor], Tensor]
"""Observations `[R, B, ...]` -> action values `[R, B, A]`."""
Loss = Callable[[Values, Values, Batch, float], Tensor]


def huber(error: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """e^2 / 2 up to |e| = 1, then |e| - 1/2 (Huber 1964): a gradient clipped to [-1, 1]."""
    return nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")


def dqn_loss(online: Values, target: Values, batch: Batch, gamma: float) -> Float[Tensor, "R B"]:
    """Mnih et al. 2015, algorithm 1: the target network chooses the next action and judges it."""
    with torch.no_grad():
        q_t = target(batch.next_obs)
    return huber(td.q_learning(online(batch.obs), batch.action, batch.reward, gamma * batch.discount, q_t))


def double_dqn_loss(online: Values, target: Values, batch: Batch, gamma: float) -> Float[Tensor, "R B"]:
    """van Hasselt et al. 2016, eq. 4: the online network chooses the next action, the target network judges it."""
    with torch.no_grad():
        q_t, selector = target(batch.next_obs), online(batch.next_obs)
    error = td.double_q_learning(online(batch.obs), batch.action, batch.reward, gamma * batch.discount, q_t, selector)
    return huber(error)


class DQN:
    """R deep Q-networks; observations are whatever the network reads.

    Args:
        network: constructs one Q-network, `[B, *shape]` -> `[B, A]`.
        obs_shape: shape of one observation.
        seeds: one for each replica; all that replica r draws is from seeds[r].
        gamma: discount.
        loss: `double_dqn_loss` or `dqn_loss`.
        learning_rate: (start, end) of Adam's step size, linear over `learning_rate_steps` steps of each replica.
        batch_size: B, for each replica.
        capacity: transitions that each replica remembers.
        learning_starts: steps of each replica before the first update.
        train_every: steps of each replica between two rounds of updates.
        gradient_steps: updates in a round.
        target_every: updates between two copies of the online network to the target network.
        epsilon: (start, end) of the chance of a random action, linear over `epsilon_steps` steps of each replica.
        clip: largest norm of a replica's gradient.
        device: where all of it lies.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        obs_shape: tuple[int, ...],
        seeds: Sequence[int],
        *,
        gamma: float,
        loss: Loss,
        learning_rate: tuple[float, float],
        learning_rate_steps: int,
        batch_size: int,
        capacity: int,
        learning_starts: int,
        train_every: int,
        gradient_steps: int,
        target_every: int,
        epsilon: tuple[float, float],
        epsilon_steps: int,
        clip: float,
        device: torch.device | str = "cpu",
    ) -> None:
        self.replicas, self.device = len(seeds), torch.device(device)
        self.obs_shape = obs_shape
        self.gamma, self.loss, self.batch_size = gamma, loss, batch_size
        self.learning_starts, self.train_every = learning_starts, train_every
        self.gradient_steps, self.target_every = gradient_steps, target_every
        rates: dict[str, Any] = {"rate": learning_rate, "rate_steps": learning_rate_steps, "clip": clip}
        self.online = Learner(network, seeds, **rates, device=device)
        self.target = copy.deepcopy(self.online.network).requires_grad_(False)
        self.replay = Replay(capacity, stream_keys(seeds, "replay").to(device))
        self.explorer = EpsilonGreedy(seeds, epsilon, epsilon_steps, device)
        self.step = 0  # steps of each replica seen
        self.updates = 0  # updates of each network made

    def memory(self, worlds: int) -> Float32[Tensor, "R W 0"]:
        return nothing(self.replicas, worlds, self.device)

    @torch.no_grad()
    def act(
        self, obs: Shaped[Tensor, "R W *shape"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        return self.explorer.act(self.online(obs), self.step), memory

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Remember the step; every `train_every` steps, learn.

        Returns `epsilon`, and after learning the round's mean `loss` and mean `gradient_norm` (before clipping).
        """
        self.replay.add(transition)
        metrics = {"epsilon": torch.full((self.replicas,), self.explorer.epsilon(self.step), device=self.device)}
        former, self.step = self.step, self.step + transition.action.shape[1]
        due = self.step // self.train_every > former // self.train_every
        if due and self.step >= self.learning_starts:
            metrics |= self._learn()
        return metrics

    def _learn(self) -> dict[str, Tensor]:
        batches = self.replay.sample(self.gradient_steps, self.batch_size, self.updates)
        losses, norms = [], []
        for batch in batches:
            loss = self.loss(self.online, self.target, batch, self.gamma).mean(1)  # [R]
            norms.append(self.online.step(loss, self.step))
            losses.append(loss.detach())
            self.updates += 1
            if self.updates % self.target_every == 0:
                self._sync()
        return {"loss": torch.stack(losses).mean(0), "gradient_norm": torch.stack(norms).mean(0)}

    @property
    def target_weights(self) -> Tensor:
        """[R, P]."""
        return self.target.weights

    @torch.no_grad()
    def _sync(self) -> None:
        self.target.weights.copy_(self.online.weights)

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
