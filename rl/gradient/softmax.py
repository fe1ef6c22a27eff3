"""What all policy gradients share: R softmax policies, what they draw, and that they are judged by their probabilities.

    pi(a | s) = exp h(s, a) / sum_b exp h(s, b)        h(s, .)    the network's outputs, the logits

A linear network on one-hot states is a table of preferences (Sutton & Barto 2018, eq. 13.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from torch import Tensor, nn

from backbones.replicas import Replicas
from lab import streams
from rl import state
from rl.deep.learner import Learner, MakeOptimizer, adam
from rl.explore import sample, stream_keys, world_keys
from rl.types import Transition, nothing


class Softmax(ABC):
    """R policies side by side; observations are whatever the network reads.

    Args:
        actor: constructs one network of logits, `[B, *shape]` -> `[B, A]`. Its last layer begins at zero, so that every
            action is equally likely at first.
        obs_shape: shape of one observation.
        seeds: one for each replica; all that replica r draws is from seeds[r].
        gamma: discount.
        rate: (start, end) of the actor's step size, linear over `rate_steps` steps of each replica.
        clip: largest norm of a replica's gradient, the actor's and the critic's each by itself.
        optimizer: elementwise.
        device: where all of it lies.
    """

    STATE: ClassVar[tuple[str, ...]] = ("actor", "step")
    """Attributes that a resume needs; a learner that keeps more names them all."""

    def __init__(
        self,
        actor: Callable[[], nn.Module],
        obs_shape: tuple[int, ...],
        seeds: Sequence[int],
        *,
        gamma: float,
        rate: tuple[float, float],
        rate_steps: int,
        clip: float,
        optimizer: MakeOptimizer = adam,
        device: torch.device | str = "cpu",
    ) -> None:
        self.replicas, self.device = len(seeds), torch.device(device)
        self.seeds, self.obs_shape, self.gamma = seeds, obs_shape, gamma
        self._learning: dict[str, Any] = {"rate_steps": rate_steps, "clip": clip, "optimizer": optimizer}
        self.actor = self.learner(actor, rate, "actor")
        self.key = stream_keys(seeds, "policy").to(self.device)
        self.step = 0  # steps of each replica learnt from, or held to be learnt from

    def learner(self, network: Callable[[], nn.Module], rate: tuple[float, float], name: str) -> Learner:
        """R networks whose outputs are zero at first; all but the step size is as for the actor."""
        made = Learner(network, self.seeds, rate=rate, name=name, device=self.device, **self._learning)
        _silence(made.network)
        return made

    @abstractmethod
    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from one step of every world."""

    @abstractmethod
    def values(self, obs: Shaped[Tensor, "*batch"]) -> Float[Tensor, "R M"]: ...

    def memory(self, worlds: int) -> Float32[Tensor, "R W 0"]:
        return nothing(self.replicas, worlds, self.device)

    @torch.no_grad()
    def act(
        self, obs: Shaped[Tensor, "R W *shape"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        chance = streams.uniform(world_keys(self.key, obs.shape[1]), self.step)
        return sample(self.actor(obs).softmax(-1), chance), memory

    @torch.no_grad()
    def policy(
        self, obs: Shaped[Tensor, "R M *shape"], memory: Float32[Tensor, "R M 0"]
    ) -> tuple[Float64[Tensor, "R M A"], Float32[Tensor, "R M 0"]]:
        return self.actor(obs).double().softmax(-1), memory

    def each(self, obs: Shaped[Tensor, "*batch"]) -> Shaped[Tensor, "R M *shape"]:
        """Observations `[M, *shape]` for each replica, or each replica's own `[R, M, *shape]` as they are."""
        return obs.expand(self.replicas, *obs.shape) if obs.ndim == len(self.obs_shape) + 1 else obs

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, self.STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, self.STATE, saved)


@torch.no_grad()
def _silence(network: Replicas) -> None:
    """Set the last layer to zero: the last two parameters, its weight and its bias."""
    first = sum(network.sizes[: len(network.names) - 2])
    network.weights[:, first:] = 0
