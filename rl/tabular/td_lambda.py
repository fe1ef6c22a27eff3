"""TD(lambda): every state remembers how lately it was visited, and shares in the errors of what follows.

    delta = r + gamma v(s') - v(s)
    z <- gamma lambda z;  z(s) <- z(s) + 1;  v <- v + alpha delta z                                     TD(lambda)
    z <- gamma lambda z;  z(s) <- (1 - alpha) z(s) + alpha;
        v <- v + [delta + v(s) - u] z - alpha [v(s) - u] x(s);  u <- v(s') before the update             true online

x(s) is 1 in s and 0 elsewhere; u is what v(s) was before the update that came between. The first nears the
lambda-return algorithm when alpha is small; the second is the online lambda-return algorithm exactly, at the same cost.
The step size of a state is that of its latest visit; in the second it is within z, as it was when z was marked.

Source: Sutton & Barto 2018, sec. 12.2 (box), 12.5 (box, with one-hot features); Sutton 1988; van Seijen & Sutton, "True
online TD(lambda)", ICML 2014, algorithm 2 (step sizes that vary); van Seijen et al., JMLR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import one_hot

from rl import td
from rl.tabular.prediction import Prediction
from rl.tabular.traces import Traces, met, shares
from rl.types import Transition


class TDLambda(Prediction):
    """TD(lambda) with accumulating traces, a trace [S] for each world, 0 when its episode begins.

    A step that is cut by a time limit bootstraps like any other; then the trace is cut. `rl.tabular.traces` says how
    worlds of a replica share its table.

    Args:
        lam: lambda, in [0, 1].
    """

    STATE = (*Prediction.STATE, "traces")

    def __init__(
        self, target_policy: Float64[Tensor, "S A"], seeds: Sequence[int], *, lam: float, **table: Any
    ) -> None:
        super().__init__(target_policy, seeds, **table)
        self.lam = lam
        self.traces = Traces(self.replicas, len(target_policy), self.device)

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t, everywhere = transition, torch.ones_like(transition.last)
        error = td.td_learning(self.v[t.obs], t.reward.double(), self.discount(t), self.v[t.next_obs])
        self.traces.visit(self.v, t.obs, torch.full_like(error, self.gamma * self.lam))
        self.traces.correct(self.v, error, everywhere)
        self.traces.forget(t.last)
        self.step += t.obs.shape[1]
        return {"td_error": error.abs().mean(1)}


class TrueOnlineTDLambda(Prediction):
    """True online TD(lambda): with one world, the online lambda-return algorithm exactly.

    Time limits and worlds that meet as in `TDLambda`.

    Args:
        lam: lambda, in [0, 1].
    """

    STATE = (*Prediction.STATE, "z", "u")

    def __init__(
        self, target_policy: Float64[Tensor, "S A"], seeds: Sequence[int], *, lam: float, **table: Any
    ) -> None:
        super().__init__(target_policy, seeds, **table)
        self.lam = lam
        self.z = torch.zeros(0, dtype=torch.float64, device=self.device)  # [R, W, S] from the first step on
        self.u = torch.zeros(0, dtype=torch.float64, device=self.device)  # [R, W] from the first step on

    def update(self, transition: Transition) -> dict[str, Float[Tensor, "R"]]:
        t, x = transition, one_hot(transition.obs, len(self.target_policy)).double()  # [R, W, S]
        v, after = self.v[t.obs], self.v[t.next_obs]  # [R, W]
        if not self.z.numel():
            self.z, self.u = torch.zeros_like(x), v.clone()
        self.v.count(t.obs)
        step = self.v.rates().unsqueeze(1) * x  # [R, W, S], alpha in s
        self.z = self.gamma * self.lam * self.z
        self.z += step * (1 - self.z)
        error = td.td_learning(v, t.reward.double(), self.discount(t), after)
        moved = (v - self.u).unsqueeze(-1)  # of another episode where one begins: there it cancels
        self.v.value += met((error.unsqueeze(-1) + moved) * self.z - moved * step, shares(self.z))
        self.z *= ~t.last.unsqueeze(-1)
        self.u = after
        self.step += t.obs.shape[1]
        return {"td_error": error.abs().mean(1)}
