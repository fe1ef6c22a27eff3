"""Dyna: learn from each step, and n times more from steps that a model remembers.

    q(s, a) <- q(s, a) + alpha [r + gamma max_a' q(s', a') - q(s, a)]        the step of the world: Q-learning
    model(s, a) <- r, s'
    n times: a pair (s, a) at random, r, s' from the model, and the same update

Dyna-Q plans on pairs it has tried: a state at random of those seen, then one of the actions tried there. Dyna-Q+ plans
with any action of those states, and adds kappa sqrt(tau) to the reward of a pair that has not been tried for tau steps:
so it looks whether the world has changed.

With W worlds all of them act first, and then plan n times, each a pair of its own: n plannings for each step as ever.
tau counts the steps of a replica, all its worlds together.

Source: Sutton 1990; Sutton & Barto 2018, sec. 8.2 (box) and 8.3. A time limit that cut a step is no part of the model:
the step bootstraps from its successor, as it did when it happened.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from lab import streams
from rl import td
from rl.explore import stream_keys, world_keys
from rl.tabular.control import Control
from rl.tabular.model import Model, bonus, draw
from rl.types import Transition


class Dyna(Control):
    """What both have in common.

    Args:
        planning: n, updates from the model for each step of the world; the others as in `rl.tabular.control`.
    """

    STATE: ClassVar[tuple[str, ...]] = (*Control.STATE, "model")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], *, planning: int, **arguments: Any) -> None:
        super().__init__(states, actions, seeds, **arguments)
        self.planning = planning
        self.model = Model(self.replicas, states, actions, self.device)
        self.key = stream_keys(seeds, "planning").to(self.device)

    @abstractmethod
    def plannable(self) -> Bool[Tensor, "R S A"]:
        """The pairs that may be planned with."""

    @abstractmethod
    def imagined(self, entry: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W"]:
        """The reward of pairs in planning."""

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t = transition
        discount = self.gamma * t.discount.double()
        error = td.q_learning(self.q[t.obs], t.action, t.reward.double(), discount, self.q[t.next_obs])
        self.q.move(self.entry(t), error)
        said = self.said(error)
        self.step += t.obs.shape[1]
        self.model.learn(t, self.step)
        if self.planning:
            self._plan(t.obs.shape[1])
        return said

    def _plan(self, worlds: int) -> None:
        n, model = self.planning, self.model
        key = world_keys(self.key, worlds)[..., None]  # [R, W, 1]
        index = 2 * n * self.step + torch.arange(2 * n, device=self.device)
        chance = streams.uniform(key, index).view(self.replicas, worlds * n, 2)
        chosen = draw(self.plannable(), chance).view(self.replicas, worlds, n)
        for entry in chosen.unbind(-1):
            s, a = entry // self.actions, entry % self.actions
            discount = self.gamma * model.discount.gather(1, entry)
            after = self.q[model.successor.gather(1, entry)]
            self.q.move(entry, td.q_learning(self.q[s], a, self.imagined(entry), discount, after))


class DynaQ(Dyna):
    """Dyna-Q (Sutton & Barto 2018, sec. 8.2)."""

    def plannable(self) -> Bool[Tensor, "R S A"]:
        return self.model.known()

    def imagined(self, entry: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W"]:
        return self.model.reward.gather(1, entry)


class DynaQPlus(Dyna):
    """Dyna-Q+ (Sutton & Barto 2018, sec. 8.3).

    Args:
        kappa: reward of a pair not tried for tau steps, divided by sqrt(tau); the others as in `Dyna`.
    """

    def __init__(self, states: int, actions: int, seeds: Sequence[int], *, kappa: float, **arguments: Any) -> None:
        super().__init__(states, actions, seeds, **arguments)
        self.kappa = kappa

    def plannable(self) -> Bool[Tensor, "R S A"]:
        known = self.model.known()
        return known.any(-1, keepdim=True).expand_as(known)

    def imagined(self, entry: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W"]:
        waited = self.step - self.model.when.gather(1, entry)
        return self.model.reward.gather(1, entry) + bonus(self.kappa, waited)
