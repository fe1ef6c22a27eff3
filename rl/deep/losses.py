"""What a Q-network's output means, what it is drawn to, and how far it is from it: expected values.

    online, lagging    networks [R, B, ...] -> [R, B, A N]: N numbers for each action, the online and the target one
    y                  the target of the action taken, [R, B, N]: no gradient; `discount` carries gamma (for n steps
                       gamma^n) and is 0 only where the world ended

Three families differ in what the N numbers are (`Method`): one expected value here, a histogram or quantiles of the
return in `rl.deep.distributional`. Apart from that stands who chooses the successor's action: `target_chooses`, or
`online_chooses`, which makes any of them double.

Source: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015, algorithm 1; van Hasselt,
Guez & Silver, "Deep reinforcement learning with double Q-learning", AAAI 2016, eq. 4.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

Network = Callable[[Tensor], Tensor]
"""Observations `[R, B, ...]` -> what the network says of them, `[R, B, A N]`."""


def huber(error: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """e^2 / 2 up to |e| = 1, then |e| - 1/2 (Huber 1964): a gradient clipped to [-1, 1]."""
    return nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none")


class Method(ABC):
    """What the N numbers are that the network gives for each action, and what it learns from a target."""

    atoms: int
    """N."""

    @abstractmethod
    def mean(self, said: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        """The expected return that N numbers stand for."""

    @abstractmethod
    def target(
        self, reward: Float[Tensor, "*b"], discount: Float[Tensor, "*b"], successor: Float[Tensor, "*b N"]
    ) -> Float[Tensor, "*b N"]:
        """What reward + discount (what follows) is, as `loss` wants it."""

    @abstractmethod
    def loss(self, said: Float[Tensor, "*b N"], y: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        """How far the numbers are from their target, one for each sample."""

    @abstractmethod
    def target_mean(self, y: Float[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
        """The expected return of a target."""

    def noted(
        self, reward: Float[Tensor, "*b"], discount: Float[Tensor, "*b"], successor: Float[Tensor, "*b N"]
    ) -> dict[str, Float[Tensor, "*b"]]:
        """What else a log should hold of a target; by default nothing."""
        return {}

    @abstractmethod
    def surprise(self, loss: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """How much there is to learn from a sample with this loss: what prioritised replay goes by."""

    def apart(self, said: Float[Tensor, "*b AN"]) -> Float[Tensor, "*b A N"]:
        """The network's output, action by action."""
        return said.view(*said.shape[:-1], -1, self.atoms)

    def q(self, said: Float[Tensor, "*b AN"]) -> Float[Tensor, "*b A"]:
        """Action values."""
        return self.mean(self.apart(said))


class Expected(Method):
    """One number for each action, its expected return: y = r + discount q', loss = huber(y - q)."""

    atoms = 1

    def mean(self, said: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b"]:
        return said.squeeze(-1)

    def target(
        self, reward: Float[Tensor, "*b"], discount: Float[Tensor, "*b"], successor: Float[Tensor, "*b 1"]
    ) -> Float[Tensor, "*b 1"]:
        return reward.unsqueeze(-1) + discount.unsqueeze(-1) * successor

    def loss(self, said: Float[Tensor, "*b 1"], y: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b"]:
        return nn.functional.huber_loss(said, y, reduction="none").squeeze(-1)

    def target_mean(self, y: Float[Tensor, "*b 1"]) -> Float[Tensor, "*b"]:
        return y.squeeze(-1)

    def surprise(self, loss: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """|y - q|, which Huber's loss tells: e^2 / 2 up to 1, then |e| - 1/2."""
        return torch.where(loss < 0.5, (2 * loss).sqrt(), loss + 0.5)


Successor = Callable[[Method, Network, Network, Tensor], Tensor]
"""(method, online, lagging, next_obs [R, B, ...]) -> what the lagging network says of one action there, [R, B, N]."""


def target_chooses(
    method: Method, online: Network, lagging: Network, next_obs: Shaped[Tensor, "R B *shape"]
) -> Float[Tensor, "R B N"]:
    """Mnih et al. 2015: the target network chooses the successor's action and judges it (and overestimates)."""
    said = lagging(next_obs)
    return of(method.apart(said), method.q(said).argmax(-1))


def online_chooses(
    method: Method, online: Network, lagging: Network, next_obs: Shaped[Tensor, "R B *shape"]
) -> Float[Tensor, "R B N"]:
    """van Hasselt et al. 2016, eq. 4: the online network chooses, the target network judges."""
    return of(method.apart(lagging(next_obs)), method.q(online(next_obs)).argmax(-1))


def of(apart: Float[Tensor, "*b A N"], action: Int64[Tensor, "*b"]) -> Float[Tensor, "*b N"]:
    """The N numbers of one action."""
    index = action[..., None, None].expand(*action.shape, 1, apart.shape[-1])
    return apart.gather(-2, index).squeeze(-2)
