"""A model of a world without chance: for each pair what came of it when it was last tried, and when that was.

Before a pair is tried the model says that nothing happens: it leads back to where one is and earns nothing (Sutton &
Barto 2018, footnote on page 168). Where chance rules, what came last stands for all that may come: then the values
learnt from the model are those of no policy (the book, too, assumes a deterministic world).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from rl import state
from rl.types import Transition

STATE = ("successor", "reward", "discount", "tried", "when")


class Model:
    """R models of S states and A actions, a row for each pair s A + a: [R, S A]."""

    def __init__(self, replicas: int, states: int, actions: int, device: torch.device | str = "cpu") -> None:
        here = torch.arange(states, device=device).repeat_interleave(actions)  # [S A]
        self.actions = actions
        self.successor = here.repeat(replicas, 1)
        self.reward = torch.zeros(replicas, states * actions, dtype=torch.float64, device=device)
        self.discount = torch.ones_like(self.reward)
        self.tried = torch.zeros_like(self.successor, dtype=torch.bool)
        self.when = torch.zeros_like(self.successor)  # the step of the last trial

    def learn(self, transition: Transition, step: int) -> None:
        """Remember one step of every world; of worlds that meet in one pair, that of the last."""
        t = transition
        entry = t.obs * self.actions + t.action
        order = torch.arange(entry.shape[1], device=entry.device)
        said = ((entry[:, :, None] == entry[:, None, :]) * order).amax(-1)  # [R, W], who speaks for the pair
        for table, news in (
            (self.successor, t.next_obs),
            (self.reward, t.reward.double()),
            (self.discount, t.discount.double()),
            (self.when, torch.full_like(entry, step)),
            (self.tried, torch.ones_like(entry, dtype=torch.bool)),
        ):
            table.scatter_(1, entry, news.gather(1, said))  # worlds that meet write the same

    def known(self) -> Bool[Tensor, "R S A"]:
        """The pairs that were tried."""
        return self.tried.view(len(self.tried), -1, self.actions)

    def state_dict(self) -> dict[str, Any]:
        return state.taken(self, STATE)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        state.put(self, STATE, saved)


def draw(among: Bool[Tensor, "R S A"], chance: Float[Tensor, "R M 2"]) -> Int64[Tensor, "R M"]:
    """Pairs s A + a: a state at random of those that have any, then one of its actions, by two numbers in [0, 1)."""
    states = among.any(-1).cumsum(-1)  # [R, S]
    s = torch.searchsorted(states, _rank(chance[..., 0], states[:, -1:]), right=True)
    actions = among.gather(1, s.unsqueeze(-1).expand(-1, -1, among.shape[-1])).cumsum(-1)  # [R, M, A]
    a = torch.searchsorted(actions, _rank(chance[..., 1:], actions[..., -1:]), right=True).squeeze(-1)
    return s * among.shape[-1] + a


def _rank(chance: Float[Tensor, "*b"], count: Int64[Tensor, "*c"]) -> Int64[Tensor, "*b"]:
    return (chance.double() * count).long()


def bonus(kappa: float, waited: Int64[Tensor, "R W"]) -> Float64[Tensor, "R W"]:
    """kappa sqrt(tau): what a pair is worth for not having been tried for tau steps (Sutton & Barto sec. 8.3)."""
    return kappa * waited.double().sqrt()
