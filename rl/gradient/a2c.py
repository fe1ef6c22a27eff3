"""Actor-critic: the critic says how much better than expected it went, and the actor does more of what went better.

    A_t    = lambda return of step t - v(s_t)                 over T steps of W worlds (`rl.returns.advantages`)
    actor    -A log pi - beta H(pi)                           critic   (A_t + v(s_t) - v)^2 / 2

Every T steps of its worlds a replica learns from all W T of them, once. lambda 1 gives the longest n-step returns that
the T steps hold, which is Mnih's; below 1 they are mixed (generalised advantages, Schulman et al. 2016). The end of the
world bootstraps nothing; a time limit and the end of the T steps bootstrap from the critic.

Source: Mnih et al., "Asynchronous methods for deep reinforcement learning", ICML 2016, algorithm S3, all worlds in step
(A2C); Sutton & Barto 2018, sec. 13.5. Departures: Adam (Kingma & Ba 2015) in place of RMSProp; actor and critic are two
networks with a step size and a clipped gradient each, so that no coefficient has to weigh one against the other; as
usual and unlike the policy gradient theorem, a state counts the same however late it is visited: no gamma^t.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from rl.deep.described import described
from rl.gradient import losses
from rl.gradient.rollout import Rollout
from rl.gradient.softmax import Softmax
from rl.returns import advantages
from rl.types import Transition


@dataclass(frozen=True)
class Batch:
    """B steps of each replica, and what they were worth."""

    obs: Shaped[Tensor, "R B *shape"]
    action: Int64[Tensor, "R B"]
    advantage: Float[Tensor, "R B"]
    target: Float[Tensor, "R B"]
    """The lambda return: advantage + v."""

    def at(self, index: Int64[Tensor, "R b"]) -> Batch:
        """Some of each replica's steps."""
        row = torch.arange(len(index), device=index.device)[:, None]
        return Batch(self.obs[row, index], self.action[row, index], self.advantage[row, index], self.target[row, index])


class ActorCritic(Softmax):
    """Collects T steps of every world, and learns from them all; how, is a subclass's.

    Args:
        critic: constructs one network of values, `[B, *shape]` -> `[B, 1]`; it says 0 at first.
        critic_rate: (start, end) of its step size.
        rollout: T.
        lam: lambda of the advantages.
        entropy: beta, what a nat of the policy's entropy is worth.
        softmax: all that `Softmax` takes.
    """

    STATE = (*Softmax.STATE, "critic", "rollout")

    def __init__(
        self,
        actor: Callable[[], nn.Module],
        obs_shape: tuple[int, ...],
        seeds: Sequence[int],
        *,
        critic: Callable[[], nn.Module],
        critic_rate: tuple[float, float],
        rollout: int,
        lam: float,
        entropy: float,
        **softmax: Any,
    ) -> None:
        super().__init__(actor, obs_shape, seeds, **softmax)
        self.critic = self.learner(critic, critic_rate, "critic")
        self.rollout = Rollout(rollout, self.device)
        self.lam, self.entropy = lam, entropy

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Remember the step; every T-th, learn.

        Returns then what `learn` says; `explained_variance`, the share of the targets' variance that the critic
        foresaw: 1 all of it, 0 or less nothing; and what the rollout looked like: mean and extremes of `batch_reward`,
        `value` (by the critic as it was), `advantage` and `target`.
        """
        self.rollout.add(transition)
        worlds = transition.action.shape[1]
        self.step += worlds
        if self.step // worlds % self.rollout.steps:
            return {}
        batch = self.batch()
        value = batch.target - batch.advantage
        seen = {"batch_reward": self.rollout["reward"].flatten(1), "value": value}
        seen |= {"advantage": batch.advantage, "target": batch.target}
        said = self.learn(batch) | {"explained_variance": losses.explained_variance(value, batch.target)}
        self.rollout.forget(torch.ones_like(transition.last))
        return said | described(seen)

    @torch.no_grad()
    def batch(self) -> Batch:
        """The steps held, with advantages by the critic as it is."""
        held = self.rollout
        v, v_next = (self.values(held[name].flatten(1, 2)).view_as(held["reward"]) for name in ("obs", "next_obs"))
        advantage = advantages(held["reward"], self.gamma * held["discount"], v, v_next, held["last"], self.lam)
        return Batch(*(x.flatten(1, 2) for x in (held["obs"], held["action"], advantage, advantage + v)))

    @abstractmethod
    def learn(self, batch: Batch) -> dict[str, Float[Tensor, "R"]]:
        """Learn from a rollout."""

    def improve(
        self, batch: Batch, surrogate: Float[Tensor, "R B"], logits: Float[Tensor, "R B A"]
    ) -> dict[str, Float[Tensor, "R"]]:
        """A step of the actor along `surrogate`, and one of the critic.

        Returns `loss`, the mean surrogate; `value_loss`, the mean of (target - v)^2 / 2; `gradient_norm` and
        `critic_gradient_norm`, of the actor's and the critic's gradient before clipping; `entropy` in nats.
        """
        entropy = losses.entropy(logits)
        norm = self.actor.step((surrogate - self.entropy * entropy).mean(1), self.step)
        error = losses.squared(self.critic(batch.obs).squeeze(-1), batch.target).mean(1)
        norms = {"gradient_norm": norm, "critic_gradient_norm": self.critic.step(error, self.step)}
        said = {"loss": surrogate.mean(1), "value_loss": error, "entropy": entropy.mean(1), **norms}
        return {name: value.detach() for name, value in said.items()}

    @torch.no_grad()
    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]:
        return self.critic(self.each(obs)).squeeze(-1)


class A2C(ActorCritic):
    """Advantage actor-critic: one step along the policy gradient a rollout."""

    def learn(self, batch: Batch) -> dict[str, Float[Tensor, "R"]]:
        logits = self.actor(batch.obs)
        return self.improve(
            batch, losses.policy_gradient(losses.log_prob(logits, batch.action), batch.advantage), logits
        )
