"""From steps to n steps: what replay holds of a transition when it looks n rewards ahead.

    reward      r_t + gamma r_(t+1) + ... + gamma^(k-1) r_(t+k-1),  k = n, or fewer where the episode ends before
    next_obs    the successor of the last of these steps
    discount    gamma^k, or 0 where the world ended there: a time limit still bootstraps

A transition comes out n - 1 turns after it went in, when all that its return needs is known; so nothing is lost at the
end of an episode: its last steps come out with the return that its end gave them. The actions between are those that
were taken, exploring or not, and nothing corrects for it: the usual uncorrected n-step target.

Source: Sutton & Barto 2018, eq. 7.1; in deep Q-networks: Hessel et al., "Rainbow", AAAI 2018, "Multi-step learning".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from rl.types import Transition

FIELDS = ("obs", "memory", "action", "reward", "next_obs", "discount", "last")


class NStep:
    """The last n - 1 steps of every world, in lockstep.

    Args:
        n: steps in a return; 1 hands each step through.
        gamma: discount of a step.
        device: where the steps come from, and a saved state goes to.

    Raises:
        ValueError: for n below 1.
    """

    def __init__(self, n: int, gamma: float, device: torch.device | str = "cpu") -> None:
        if n < 1:
            raise ValueError(f"n-step returns with n = {n}, expected 1 or more")
        self.n, self.gamma, self.device = n, gamma, torch.device(device)
        self.past: list[Transition] = []  # oldest first

    def add(self, step: Transition) -> Transition | None:
        """Take in one step of each world. Returns the one of n - 1 turns ago with its return; None while there is none.

        The `discount` that comes out carries gamma; `last` says whether the return was cut by an end.
        """
        self.past.append(step)
        if len(self.past) < self.n:
            return None
        reward, discount, next_obs, last = step.reward, self.gamma * step.discount, step.next_obs, step.last
        for one in reversed(self.past[:-1]):
            over = one.last  # what comes later belongs to another episode
            reward = torch.where(over, one.reward, one.reward + self.gamma * reward)
            discount = self.gamma * torch.where(over, one.discount, discount)
            shape = (*over.shape, *[1] * (next_obs.ndim - 2))
            next_obs = torch.where(over.view(shape), one.next_obs, next_obs)
            last = over | last
        first = self.past.pop(0)
        return replace(first, reward=reward, discount=discount, next_obs=next_obs, last=last)

    def state_dict(self) -> dict[str, Any]:
        """The steps held, oldest first."""
        return {
            "count": len(self.past),
            **{f: torch.stack([getattr(one, f) for one in self.past]) for f in FIELDS if self.past},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        held = {name: state[name].to(self.device, copy=True) for name in FIELDS if name in state}
        self.past = [Transition(**{name: held[name][i] for name in FIELDS}) for i in range(state["count"])]
