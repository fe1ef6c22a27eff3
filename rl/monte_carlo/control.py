"""Monte Carlo control: what a pair is worth is the mean return that followed it, and better is what is worth more.

    q(s, a) <- mean of G over the visits of (s, a)        epsilon-greedy on q, or greedy after a start anywhere

Each return counts alike, those of former policies too, as in the books; they are outnumbered as time goes on.

Source: Sutton & Barto 2018, sec. 5.3 (exploring starts) and 5.4 (epsilon-soft); Zhao 2025, alg. 5.2 and 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from lab import streams
from rl.explore import stream_keys, world_keys
from rl.monte_carlo.episodes import Ended, Episodes, Means, Visits, every_visit, mean_size
from rl.tabular.control import Control
from rl.types import Transition


class MonteCarlo(Control):
    """Epsilon-greedy on-policy Monte Carlo control.

    Departures from Sutton & Barto, p. 101: epsilon may fall in time; the policy is improved after each step in which
    any of a replica's worlds ended an episode, for all of its worlds at once, also amid episodes.

    Args:
        states, actions, seeds, gamma, epsilon, epsilon_steps, device: see `rl.tabular.control`.
        limit, tail: see `rl.monte_carlo.episodes`, which says what a cut episode teaches.
        visits: which visits of a pair count, `first_visits` or `every_visit`.
    """

    STATE: ClassVar[tuple[str, ...]] = ("q", "step", "means", "episodes", "error")

    def __init__(
        self,
        states: int,
        actions: int,
        seeds: Sequence[int],
        *,
        gamma: float,
        limit: int,
        tail: int,
        visits: Visits = every_visit,
        epsilon: tuple[float, float] = (0.0, 0.0),
        epsilon_steps: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            states,
            actions,
            seeds,
            gamma=gamma,
            alpha=1.0,
            omega=1.0,
            epsilon=epsilon,
            epsilon_steps=epsilon_steps,
            device=device,
        )
        self.visits, self.means = visits, Means(self.q)
        self.episodes = Episodes(self.replicas, limit, tail, device)
        self.error = torch.zeros(self.replicas, dtype=torch.float64, device=device)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from the episodes that ended. Logs `return_error`: mean |G - q| over the visits that last taught."""
        t = transition
        ended = self.episodes.add(t.last, entry=self.entry(t), reward=t.reward.double(), **self.also(t))
        if ended is not None:
            self.learn(ended)
        epsilon = torch.full((self.replicas,), self.explorer.epsilon(self.step), device=self.device)
        self.step += t.obs.shape[1]
        return {"return_error": self.error.clone(), "epsilon": epsilon}

    def also(self, transition: Transition) -> dict[str, Tensor]:
        """More columns of an episode, for learners that want them."""
        return {}

    def learn(self, ended: Ended) -> None:
        """Take the returns of whole episodes into the means."""
        entry = ended.columns["entry"]
        when = self.visits(entry) & ended.teaches  # what is padded stands behind all visits
        replica = ended.replica[:, None].expand_as(entry)[when]
        target = ended.returns(self.gamma)[when]
        error = self.means.add(replica, entry[when], target, torch.ones_like(target))
        self.error = mean_size(error, replica, self.error)


class ExploringStarts(MonteCarlo):
    """Monte Carlo control with exploring starts: an episode's first action is any, all others are greedy.

    That it also begins in any state is for its worlds to see to (`rl.recipes.monte_carlo`). Departures from Sutton &
    Barto, p. 99: of equal actions one is drawn at each visit; and as `MonteCarlo` says. Arguments as there, without
    any epsilon.
    """

    def __init__(
        self,
        states: int,
        actions: int,
        seeds: Sequence[int],
        *,
        gamma: float,
        limit: int,
        tail: int,
        visits: Visits = every_visit,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(states, actions, seeds, gamma=gamma, limit=limit, tail=tail, visits=visits, device=device)
        self.key = stream_keys(seeds, "first action").to(device)

    def act(
        self, obs: Int64[Tensor, "R W"], memory: Float32[Tensor, "R W 0"]
    ) -> tuple[Int64[Tensor, "R W"], Float32[Tensor, "R W 0"]]:
        greedy, memory = super().act(obs, memory)
        W = obs.shape[1]
        first = (streams.uniform(world_keys(self.key, W), self.step) * self.actions).long()
        return torch.where(self.episodes.begin(W), first, greedy), memory
