"""REINFORCE: when an episode is over, make each of its actions likelier in proportion to what came of it.

    theta <- theta + alpha sum_t gamma^t (G_t - b(s_t)) grad log pi(a_t | s_t)      G_t = r_t + gamma G_(t+1)
    w     <- w + alpha_w mean_t (G_t - b(s_t)) grad b(s_t)                          b = 0 without a baseline

An episode is learnt from once, in one step, as it ends; those of a replica's worlds that end in the same turn are one
sum. gamma^t is there: on average the step is along the exact gradient of the value of the start, as long as `clip` cuts
nothing. A gradient that is clipped counts for less than its share, and clipped ones are those of the rarest and largest
returns: so a small `clip` is a bias, which buys that no single episode can end the exploring; `inf` is without it.

Source: Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", Machine
Learning 1992, sec. 4 (episodic REINFORCE); Sutton & Barto 2018, sec. 13.3 and 13.4. Departures: the book steps once for
each t, along gradients at weights that have moved by then; here as in Williams all of an episode is one gradient. So
the baseline steps along the mean over an episode, for a sum of hundreds of steps would overshoot. With several worlds,
the weights may move while an episode lasts; its gradient is taken at those that it ends with.

An episode that is cut, by a time limit or because it is longer than what is kept, is completed by what the baseline
thinks of the state in which it was cut: nothing at all where there is no baseline. So without a baseline what grows is
the return within the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn

from rl import td
from rl.gradient import losses
from rl.gradient.rollout import Rollout
from rl.gradient.softmax import Softmax
from rl.types import Transition

BLOCK = 32
"""Steps of an episode that the networks read at once. Longer ones are read in several such blocks, as many as the
longest of all replicas asks for: in further ones a replica adds nothing to its sums, so that its numbers do not depend
on how long the episodes of others are."""


def ascent(weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """Plain gradient steps: where no episode ended the gradient is zero, and nothing moves."""
    return torch.optim.SGD(weights, lr=rate)


def to_go(
    r: Float[Tensor, "*b T"], discount: Float[Tensor, "*b T"], v: Float[Tensor, "*b 1"], last: Bool[Tensor, "*b T"]
) -> Float[Tensor, "*b T"]:
    """G_t = r_t + discount_t G_(t+1), and v in place of G_(t+1) where t is the last.

    `rl.returns.lambda_returns` at lambda 1, in log2 T rounds in place of T: after the k-th, G holds 2^k rewards.
    """
    out = r + torch.where(last, discount * v, 0.0)
    reach = discount.masked_fill(last, 0)  # of the step that follows those which G holds
    ahead = 1
    while ahead < r.shape[-1]:
        out, reach = (
            out + reach * nn.functional.pad(out[..., ahead:], (0, ahead)),
            reach * nn.functional.pad(reach[..., ahead:], (0, ahead)),
        )
        ahead *= 2
    return out


@dataclass(frozen=True)
class Block:
    """B = W BLOCK steps of each replica."""

    obs: Shaped[Tensor, "R B *shape"]
    action: Int64[Tensor, "R B"]
    returns: Float[Tensor, "R B"]
    """G_t."""
    fade: Float[Tensor, "R B"]
    """gamma^t."""
    counts: Float[Tensor, "R B"]
    """1 for a step of an episode that is over, else 0."""
    reward: Float[Tensor, "R B"]

    def seen(self) -> Float[Tensor, "6 R"]:
        """Sum, least and most of the rewards and of the returns of its steps (`SEEN`)."""
        there = self.counts > 0
        columns = torch.stack([self.reward, self.returns])
        low, high = columns.where(there, torch.inf).amin(-1), columns.where(there, -torch.inf).amax(-1)
        return torch.cat([columns.where(there, 0).sum(-1), low, high])


SEEN = ("batch_reward", "batch_return", "batch_reward_min", "batch_return_min", "batch_reward_max", "batch_return_max")
"""What is logged of the steps that were learnt from."""


class Reinforce(Softmax):
    """REINFORCE without a baseline; it has no values. `rl.gradient.softmax` says what it is made of.

    Args:
        horizon: steps of an episode that are kept. A longer one is cut there, and what follows counts as another.
    """

    STATE = (*Softmax.STATE, "rollout", "latest")
    LOGGED: tuple[str, ...] = ("loss", "gradient_norm", "entropy", *SEEN)

    def __init__(
        self,
        actor: Callable[[], nn.Module],
        obs_shape: tuple[int, ...],
        seeds: Sequence[int],
        *,
        horizon: int,
        **softmax: Any,
    ) -> None:
        super().__init__(actor, obs_shape, seeds, optimizer=ascent, **softmax)
        self.rollout = Rollout(horizon, self.device)
        self.latest = torch.zeros(len(self.LOGGED), self.replicas, device=self.device)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Remember the step, and learn from the episodes that it ended.

        Returns what was found when each replica last learnt, 0 before: `loss`, the sum over steps of
        -gamma^t (G_t - b) log pi; `gradient_norm`, of its gradient before clipping; `entropy`, of the policy where the
        episode went, in nats; mean and extremes of `batch_reward` and `batch_return` (G_t); with a baseline
        `value_loss`, the mean of (G_t - b)^2 / 2, and `critic_gradient_norm`.
        """
        self.rollout.add(transition)
        self.step += transition.action.shape[1]
        over = transition.last | self.rollout.full
        if over.any():
            self.latest = torch.where(over.any(1), self.learn(list(self.episodes(over))), self.latest)
            self.rollout.forget(over)
        return dict(zip(self.LOGGED, self.latest, strict=True))

    def episodes(self, over: Bool[Tensor, "R W"]) -> Iterator[Block]:
        """What is held of the worlds of `over`, block by block."""
        held, longest = self.rollout, int((self.rollout.length * over).max())
        ahead = self.worth(held.final("next_obs"))[..., None]  # [R, W, 1], for where an episode was cut
        t = torch.arange(-(-longest // BLOCK) * BLOCK, device=over.device)[: held.steps]
        left = held.length[..., None] - 1 - t  # [R, W, t], steps that follow
        reward, discount = held["reward"][:, :, : len(t)], self.gamma * held["discount"][:, :, : len(t)]
        returns = to_go(reward, discount, ahead, left <= 0)
        fade = (self.gamma ** t.double()).float().expand_as(left)
        counts = ((left >= 0) & over[..., None]).float()
        for first in range(0, len(t), BLOCK):
            part = slice(first, min(first + BLOCK, len(t)))
            columns = (held["obs"], held["action"], returns, fade, counts, reward)
            yield Block(*(column[:, :, part].flatten(1, 2) for column in columns))

    def learn(self, blocks: Sequence[Block]) -> Float[Tensor, "K R"]:
        """One step along the gradient of all of them. Returns what is logged."""
        loss, entropy, counts = torch.zeros(3, self.replicas, device=self.device)
        for block in blocks:
            log_odds = self.actor(block.obs).log_softmax(-1)
            advantage = block.fade * (block.returns - self.worth(block.obs))
            surrogate = losses.policy_gradient(td.of(log_odds, block.action), advantage)
            loss = loss + (surrogate * block.counts).sum(1)
            entropy = entropy + (losses.entropy(log_odds.detach()) * block.counts).sum(1)
            counts = counts + block.counts.sum(1)
        norm = self.actor.step(loss, self.step)
        seen = torch.stack([block.seen() for block in blocks])  # [blocks, 6, R]
        mean = sum(seen[:, :2]) / counts.clamp(min=1)
        said = torch.stack([loss.detach(), norm, entropy / counts.clamp(min=1)])
        return torch.cat([said, mean, seen[:, 2:4].amin(0), seen[:, 4:].amax(0)])

    def worth(self, obs: Shaped[Tensor, "R B *shape"]) -> Float[Tensor, "R B"]:
        """b(s): nothing."""
        return torch.zeros(obs.shape[:2], device=obs.device)

    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]:
        """It has no idea of them: nan."""
        return torch.full(self.each(obs).shape[:2], torch.nan, device=obs.device)


class ReinforceBaseline(Reinforce):
    """REINFORCE with a learned baseline, which takes from the variance of the gradient and leaves its mean.

    Args:
        critic: constructs one network of values, `[B, *shape]` -> `[B, 1]`; it says 0 at first.
        critic_rate: (start, end) of its step size.
        reinforce: all that `Reinforce` takes.
    """

    STATE = (*Reinforce.STATE, "critic")
    LOGGED = (*Reinforce.LOGGED, "value_loss", "critic_gradient_norm")

    def __init__(
        self, *reinforce: Any, critic: Callable[[], nn.Module], critic_rate: tuple[float, float], **more: Any
    ) -> None:
        super().__init__(*reinforce, **more)
        self.critic = self.learner(critic, critic_rate, "critic")

    def learn(self, blocks: Sequence[Block]) -> Float[Tensor, "K R"]:
        said = super().learn(blocks)  # before the baseline moves
        loss, counts = torch.zeros(2, self.replicas, device=self.device)
        for block in blocks:
            error = losses.squared(self.critic(block.obs).squeeze(-1), block.returns)
            loss = loss + (error * block.counts).sum(1)
            counts = counts + block.counts.sum(1)
        mean = loss / counts.clamp(min=1)
        norm = self.critic.step(mean, self.step)
        return torch.cat([said, torch.stack([mean.detach(), norm])])

    @torch.no_grad()
    def worth(self, obs: Shaped[Tensor, "R B *shape"]) -> Float[Tensor, "R B"]:
        """b(s)."""
        return self.critic(obs).squeeze(-1)

    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]:
        return self.worth(self.each(obs))
