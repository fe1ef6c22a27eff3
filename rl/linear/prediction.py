"""Semi-gradient TD(lambda): a policy's values as a linear function of features.

    v(s) = w . x(s)
    z <- gamma lambda z + x(s);    delta = r + gamma w . x(s') - w . x(s);    w <- w + alpha delta z

lambda 0 is semi-gradient TD(0). On-policy it converges to the TD fixed point: w with E[delta z] = 0 where states come
as often as the policy visits them, and its error is at most (1 - gamma lambda) / (1 - gamma) times the least possible
(eq. 12.8).

Source: Sutton & Barto 2018, sec. 9.3 (box), 9.4 (fixed point), 12.2 (box); Tsitsiklis & Van Roy, "An analysis of
temporal-difference learning with function approximation", IEEE Transactions on Automatic Control 1997.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from rl import td
from rl.explore import linear
from rl.linear.features import Features, read
from rl.tabular.prediction import Following
from rl.tabular.traces import met, shares
from rl.types import Transition


class SemiGradientTDLambda(Following):
    """Semi-gradient TD(lambda) with accumulating traces, one for each world.

    A step that is cut by a time limit bootstraps like any other; then the trace is cut. How worlds of a replica share
    its weights says `rl.tabular.traces`.

    Args:
        target_policy, seeds, gamma, device: as in `rl.tabular.prediction.Following`.
        features: of the states.
        alpha: (start, end) of the step size, linear over `alpha_steps` steps of each replica.
        lam: lambda, in [0, 1].
    """

    STATE = (*Following.STATE, "w", "z")

    def __init__(
        self,
        target_policy: Float64[Tensor, "S A"],
        seeds: Sequence[int],
        *,
        features: Features,
        gamma: float,
        alpha: tuple[float, float],
        alpha_steps: int,
        lam: float,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(target_policy, seeds, gamma=gamma, device=device)
        self.features, self.lam = features, lam
        self.alpha, self.alpha_steps = alpha, alpha_steps
        self.w = torch.zeros(self.replicas, features.size, dtype=torch.float64, device=device)
        self.z = torch.zeros(0, dtype=torch.float64, device=device)  # [R, W, n] from the first step on

    def values(self, obs: Int64[Tensor, "*batch"]) -> Float64[Tensor, "R M"]:
        return read(self.w, self.features(obs.expand(self.replicas, obs.shape[-1])))

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t, x = transition, self.features(transition.obs)
        if not self.z.numel():
            self.z = self.w.new_zeros(*t.obs.shape, self.features.size)
        error = td.td_learning(read(self.w, x), t.reward.double(), self.discount(t), self.values(t.next_obs))
        self.z *= self.gamma * self.lam
        self.z.scatter_add_(-1, x.which, x.strength)
        step = linear(*self.alpha, self.alpha_steps, self.step) * self.features.rates
        self.w += step * met(error.unsqueeze(-1) * self.z, shares(self.z))
        self.z *= ~t.last.unsqueeze(-1)
        self.step += t.obs.shape[1]
        return {"td_error": error.abs().mean(1)}
