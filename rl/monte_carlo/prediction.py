"""Monte Carlo prediction: what a policy is worth in each state, from its own episodes or from another policy's.

    v(s) <- weighted mean over the visits of s of the targets that an estimator of `rl.monte_carlo.importance` makes

From the policy's own episodes every ratio is 1, and all estimators are the mean of the returns.

Source: Sutton & Barto 2018, sec. 5.1, 5.5, 5.6 and 5.9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from rl.explore import stream_keys
from rl.monte_carlo.episodes import Episodes, Means, Visits, first_visits, mean_size
from rl.monte_carlo.importance import Estimator, weighted
from rl.tabular.prediction import Following
from rl.tabular.table import Table
from rl.types import Transition


class Prediction(Following):
    """R estimates of what `target_policy` is worth (see `rl.types.Predictor`); observations are state indices.

    Args:
        target_policy: the policy to judge.
        behaviour: the policy that acts; wherever the other one may act, it must be able to act alike.
        seeds: one for each replica.
        gamma: discount.
        limit, tail: see `rl.monte_carlo.episodes`, which says what a cut episode teaches.
        estimate: how returns of the one policy become values of the other (see `rl.monte_carlo.importance`).
        visits: which visits of a state count, `first_visits` or `every_visit`.
        device: where the tables lie.

    Raises:
        ValueError: where the target policy does what the behaviour never does.
    """

    STATE: ClassVar[tuple[str, ...]] = (*Following.STATE, "v", "means", "episodes", "error")

    def __init__(
        self,
        target_policy: Float64[Tensor, "S A"],
        behaviour: Float64[Tensor, "S A"],
        seeds: Sequence[int],
        *,
        gamma: float,
        limit: int,
        tail: int,
        estimate: Estimator = weighted,
        visits: Visits = first_visits,
        device: torch.device | str = "cpu",
    ) -> None:
        uncovered = ((target_policy > 0) & (behaviour <= 0)).nonzero()
        if len(uncovered):
            s, a = uncovered[0].tolist()
            p = float(target_policy[s, a])
            raise ValueError(f"the policy takes action {a} in state {s} with {p:g}, expected behaviour that may, too")
        super().__init__(target_policy, seeds, gamma=gamma, device=device)
        self.behaviour, self.key = behaviour.to(device), stream_keys(seeds, "behaviour").to(device)
        self.estimate, self.visits = estimate, visits
        self.v = Table(self.replicas, (len(target_policy),), alpha=1.0, omega=1.0, device=device)
        self.means = Means(self.v)
        self.episodes = Episodes(self.replicas, limit, tail, device)
        self.error = torch.zeros(self.replicas, dtype=torch.float64, device=device)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        """Learn from the episodes that ended. Logs `return_error`: mean |target - v| over the visits that last taught.

        With ordinary importance sampling its targets are returns times rho, and it may be large.
        """
        t = transition
        pair = t.obs, t.action
        ratio = self.target_policy[pair] / self.behaviour[pair]
        ended = self.episodes.add(t.last, state=t.obs, reward=t.reward.double(), ratio=ratio)
        if ended is not None:
            entry = ended.columns["state"]
            when = self.visits(entry) & ended.teaches
            replica = ended.replica[:, None].expand_as(entry)[when]
            target, weight = (column[when] for column in self.estimate(ended, self.gamma))
            error = self.means.add(replica, entry[when], target, weight)
            self.error = mean_size(error, replica, self.error)
        self.step += t.obs.shape[1]
        return {"return_error": self.error.clone()}

    def values(self, obs: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M"]:
        return self.v.at(obs)
