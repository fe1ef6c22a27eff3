"""Direct preference optimisation: learn from pairs, without a reward model and without sampling (Rafailov et al. 2023).

    loss = f(log pi(chosen), log pi(rejected), log ref(chosen), log ref(rejected)),    f from `losses`

With an `anchor` the loss is f - anchor log pi(chosen), the two terms of Pang et al. 2024, "Iterative reasoning
preference optimization", but with the log-probability summed, not divided by the length. Without it most f only ask
that the chosen rise *against* the rejected, and both may fall (Razin et al. 2024, "Unintentional unalignment").

The policy reads the prompt once, and both completions after it, in one forward pass over a row without padding.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from generative.objective import Batch, Losses
from generative.preference.data import Judge, packed
from generative.preference.four import Four
from generative.preference.losses import Preference, PreferenceConfig

PLAIN = PreferenceConfig()
"""DPO with a beta of 0.1."""
TIE = 1e-4
"""In nats: rewards that differ by no more than beta times it are equal."""
FLAT = 1e-3
"""Of the slope of an undecided pair: a loss with less of a slope teaches next to nothing."""


class DPO:
    """The objective, for a model that is a `Judge` and `PairData`.

    Args:
        config: which losses, and how strongly the reference holds.
        shared: whether a prompt is read once for both sides. The numbers are the same up to rounding; without it,
            each side is read with a prompt of its own.

    Raises ValueError as `losses.Preference` does, for a configuration that asks for what there is not.

    Metrics, one number a pair, named as the field names them: `rewards/chosen` and `rewards/rejected` are the implicit
    rewards beta (log pi - log ref), or beta log pi where no loss looks at the reference, and then per token where the
    losses are (`losses.Preference.rewards`), `rewards/margins` their difference, `rewards/accuracies` 1 where it is
    positive (by more than `TIE` nats: before the first update it is nothing but rounding),
    `logps/chosen` and `logps/rejected` the policy's log-probabilities in nats, `loss/preference` is f, the loss
    without the anchor, and `zero_gradient` is 1 where a pair teaches next to nothing: where |d loss / d pi_c| +
    |d loss / d pi_r| is less than `FLAT` of what it is for an undecided pair of the same lengths, whose four vectors
    are 0. Of DPO that is beta, of DPO per token beta / n for two sides of n tokens.
    """

    def __init__(self, config: PreferenceConfig = PLAIN, *, shared: bool = True) -> None:
        self.preference, self.beta, self.anchor = Preference(config), config.beta, config.anchor
        self.shared = shared

    @property
    def whole(self) -> str:
        """Which losses look at what of a whole batch, in words, and so cannot be had of its parts; mostly empty."""
        return self.preference.whole

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """f - anchor log pi(chosen) [B]; DPO's f is ln 2 while the policy is the reference. `key` is not used."""
        tokens, row = packed(batch, shared=self.shared)
        chosen, rejected = row.sums(cast(Judge, model).judge(tokens, row)).view(-1, 2).unbind(dim=1)  # [B] each
        reference = batch["reference"].to(chosen.dtype)
        return self.told(Four(chosen, rejected, *reference.unbind(dim=1)), *batch["lengths"][:, 1:].unbind(dim=1))

    def told(self, four: Four, chosen: Int64[Tensor, "B"], rejected: Int64[Tensor, "B"]) -> Losses:
        """Loss and metrics of the four vectors, wherever they come from, and of both sides' lengths."""
        value = self.preference(four, chosen, rejected)
        good, bad = self.preference.rewards(four, chosen, rejected)
        undecided = Four(*map(torch.zeros_like, four))
        steep = self._slope(undecided, chosen, rejected)
        metrics = {
            "rewards/chosen": good,
            "rewards/rejected": bad,
            "rewards/margins": good - bad,
            "rewards/accuracies": (good - bad > self.beta * TIE).float(),
            "logps/chosen": four.pi_c,
            "logps/rejected": four.pi_r,
            "loss/preference": value + self.anchor * four.pi_c,
            "zero_gradient": (self._slope(four, chosen, rejected) < FLAT * steep).float(),
        }
        return Losses(value, metrics)

    @torch.enable_grad()
    def _slope(self, four: Four, chosen: Int64[Tensor, "B"], rejected: Int64[Tensor, "B"]) -> Float[Tensor, "B"]:
        """|d loss / d pi_c| + |d loss / d pi_r| of each pair."""
        pi_c, pi_r = (each.detach().requires_grad_() for each in (four.pi_c, four.pi_r))
        value = self.preference(Four(pi_c, pi_r, four.ref_c, four.ref_r), chosen, rejected)
        of_chosen, of_rejected = torch.autograd.grad(value.sum(), (pi_c, pi_r))
        return of_chosen.abs() + of_rejected.abs()
