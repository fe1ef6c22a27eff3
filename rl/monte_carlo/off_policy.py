"""Off-policy Monte Carlo control: the greedy policy, learned from episodes of an epsilon-greedy one.

    from the last step backwards, with G the return and W = 1 at first:
        C(s, a) <- C(s, a) + W,   q(s, a) <- q(s, a) + (W / C(s, a)) [G - q(s, a)]
        stop where a is not greedy in s; else W <- W / b(a | s)

The policy is greedy and never draws, so only the end of an episode, behind its last other action, teaches anything.

Source: Sutton & Barto 2018, sec. 5.7 (weighted importance sampling, p. 111).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rl.monte_carlo.control import MonteCarlo
from rl.monte_carlo.episodes import Ended, mean_size
from rl.monte_carlo.importance import LARGEST
from rl.td import of
from rl.types import Transition


class OffPolicy(MonteCarlo):
    """Off-policy control by weighted importance sampling; every visit counts.

    Departures: b is epsilon-greedy on the q of the moment rather than any soft policy, and what is greedy is asked of
    the q of the moment too; episodes of one replica that end in the same step are worked through side by side.

    Args:
        states, actions, seeds, gamma, epsilon, epsilon_steps, limit, tail, device: as of `MonteCarlo`.
    """

    STATE: ClassVar[tuple[str, ...]] = (*MonteCarlo.STATE, "taught")

    def __init__(self, states: int, actions: int, seeds: Sequence[int], **arguments: Any) -> None:
        super().__init__(states, actions, seeds, **arguments)
        self.taught = torch.zeros(self.replicas, dtype=torch.float64, device=self.device)

    def also(self, transition: Transition) -> dict[str, Tensor]:
        """b(a | s), which nobody knows any more when the episode ends."""
        odds = self.explorer.odds(self.q[transition.obs], self.step)
        return {"odds": of(odds, transition.action)}

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from the episodes that ended. Logs also `steps_taught`: steps of an episode that taught, in the mean
        over those that ended last.
        """
        return {**super().update(transition), "steps_taught": self.taught.clone()}

    def learn(self, ended: Ended) -> None:
        """Whole episodes, backwards as far as the policy would have gone along."""
        length = ended.there.sum(1)  # [M]
        ago = length[:, None] - 1 - torch.arange(ended.there.shape[1], device=self.device)  # step k from the end
        columns = (ended.columns["entry"], ended.columns["odds"], ended.returns(self.gamma), ended.teaches)
        entry, odds, target, teaches = (column.gather(1, ago.clamp(min=0)) for column in columns)
        weight = torch.ones_like(target[:, 0])
        alive = torch.ones_like(length, dtype=torch.bool)
        taught, errors, replicas = torch.zeros_like(weight), [], []
        for k in range(entry.shape[1]):
            when = alive & teaches[:, k] & (ago[:, k] >= 0)
            errors.append(self.means.add(ended.replica[when], entry[when, k], target[when, k], weight[when]))
            replicas.append(ended.replica[when])
            taught += when
            greedy = self.q.value[ended.replica, entry[:, k] // self.actions].argmax(-1)
            alive &= (greedy == entry[:, k] % self.actions) & (ago[:, k] > 0)
            if not alive.any():
                break
            weight = (weight / odds[:, k]).clamp(max=LARGEST)
        self.taught = mean_size(taught, ended.replica, self.taught)
        self.error = mean_size(torch.cat(errors), torch.cat(replicas), self.error)
