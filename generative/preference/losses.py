"""A preference is four numbers: every loss by name, each a function of four vectors [B] of log-probabilities.

What the vectors are, and what may be done to them first, is in `four`; the losses are in `contrastive` (of a
difference), `sided` (of each side by itself), `transport` (of a whole batch) and `unreferenced`. Where the
log-probabilities come from is not known here: a language model, a policy on a grid, or a denoiser's surrogate.

`Preference` is what a trainer asks: losses with weights, an SFT term, another divergence, no reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Int64
from torch import Tensor

from generative.preference import four as vectors
from generative.preference.contrastive import cdpo, discopop, exo, hinge, ipo, robust, sigmoid
from generative.preference.four import Divergence, Four, Vector
from generative.preference.sided import apo_down, apo_zero, bco, kto, nca, sppo
from generative.preference.transport import aot, aot_unpaired
from generative.preference.unreferenced import orpo, simpo

Kind = Literal["contrastive", "sided", "transport", "unreferenced"]


@dataclass(frozen=True)
class Loss:
    """A loss with what has to be known of it; called like its function."""

    core: Callable[..., Float[Tensor, "B"]]
    kind: Kind
    smooths: bool = False
    """Whether it takes `smoothing`, the share of labels that are wrong."""
    per_token: bool = False
    """Whether it is a loss of log-probabilities per token."""
    whole: str = ""
    """What of all pairs of a batch it looks at, so that parts of the batch would have another loss. Most look at each
    pair by itself."""

    def __call__(self, *four: Any, **options: Any) -> Float[Tensor, "B"]:
        """core(pi_c, pi_r, ref_c, ref_r, beta, ...)."""
        return self.core(*four, **options)


LOSSES: dict[str, Loss] = {
    "sigmoid": Loss(sigmoid, "contrastive"),
    "sigmoid-per-token": Loss(sigmoid, "contrastive", per_token=True),
    "cdpo": Loss(cdpo, "contrastive", smooths=True),
    "robust": Loss(robust, "contrastive", smooths=True),
    "ipo": Loss(ipo, "contrastive"),
    "ipo-per-token": Loss(ipo, "contrastive", per_token=True),
    "hinge": Loss(hinge, "contrastive"),
    "exo": Loss(exo, "contrastive", smooths=True),
    "discopop": Loss(discopop, "contrastive"),
    "nca": Loss(nca, "sided"),
    "bco": Loss(bco, "sided"),
    "sppo": Loss(sppo, "sided"),
    "apo-zero": Loss(apo_zero, "sided"),
    "apo-down": Loss(apo_down, "sided"),
    "kto": Loss(kto, "sided", whole="the mean of all log-ratios"),
    "aot": Loss(aot, "transport", smooths=True, whole="the ranks of all margins"),
    "aot-unpaired": Loss(aot_unpaired, "transport", smooths=True, whole="the ranks of all log-ratios"),
    "simpo": Loss(simpo, "unreferenced", per_token=True),
    "orpo": Loss(orpo, "unreferenced", per_token=True),
}


@dataclass(frozen=True)
class PreferenceConfig:
    """What is asked of a pair."""

    loss: tuple[str, ...] = ("sigmoid",)
    """Losses to add up: sigmoid (DPO), cdpo, robust, ipo, hinge, exo, discopop, nca, bco, sppo, apo-zero, apo-down,
    kto, aot, aot-unpaired, simpo, orpo; sigmoid-per-token and ipo-per-token divide by lengths first."""
    weights: tuple[float, ...] = ()
    """Of the losses, in their order, 0 or more; by default 1 each. One of 0 is as if its loss were not there."""
    beta: float = 0.1
    """Strength of the hold to the reference. Larger stays closer to it and learns less. simpo, which has none, asks for
    a margin of 0.5 / beta nats a token: 5 with a beta of 0.1; its authors have a beta of 2 to 10."""
    smoothing: float | None = None
    """Share of the labels that is taken to be wrong, for cdpo, robust, exo and aot; by default what each paper has."""
    divergence: Divergence = "reverse-kl"
    """How the policy is held to the reference; others than the reverse KL are for losses of a difference."""
    alpha: float = 0.5
    """Of the alpha divergence: near 0 it is the reverse KL, near 1 the forward one."""
    reference_free: bool = False
    """Whether the reference is left out: then only the policy's own preference counts."""
    anchor: float = 0.0
    """Weight of an added SFT loss, -log pi(chosen), which keeps the chosen likely. 0 is none."""


class Preference:
    """The loss of a configuration.

    Raises:
        ValueError: for a loss that does not exist, weights that are not one each, negative, not finite or all 0, a beta
            that is not positive and finite, an anchor that is negative or not finite, a smoothing outside (0, 1/2) or
            where nothing is smoothed, another divergence for losses of no difference.

    Attributes:
        terms: (name, weight) of the losses that are added up, those with a weight of 0 left out.
    """

    def __init__(self, config: PreferenceConfig) -> None:
        self.config = config
        for name in config.loss:
            if name not in LOSSES:
                raise ValueError(f"loss {name!r}: expected one of {', '.join(LOSSES)}")
        if not config.loss:
            raise ValueError("loss: expected one at least")
        self.terms = [(name, weight) for name, weight in zip(config.loss, self._weights(), strict=True) if weight]
        names = [name for name, _ in self.terms]
        if not 0 < config.beta < math.inf:
            raise ValueError(f"beta is {config.beta:g}: expected a finite number above 0")
        if not 0 <= config.anchor < math.inf:
            raise ValueError(f"anchor is {config.anchor:g}: expected a finite number, 0 or more")
        if config.smoothing is not None:
            if not any(LOSSES[name].smooths for name in names):
                raise ValueError(f"smoothing {config.smoothing:g}: {', '.join(names)} smooths nothing")
            if not 0 < config.smoothing < 0.5:
                raise ValueError(f"smoothing is {config.smoothing:g}: expected more than 0 and less than 0.5")
        other = [name for name in names if LOSSES[name].kind != "contrastive"]
        if config.divergence != "reverse-kl" and other:
            raise ValueError(f"divergence {config.divergence}: not for {other[0]}, which is no loss of a difference")

    def _weights(self) -> tuple[float, ...]:
        config = self.config
        if config.weights and len(config.weights) != len(config.loss):
            raise ValueError(f"{len(config.weights)} weights for {len(config.loss)} losses: expected one each")
        found = config.weights or (1.0,) * len(config.loss)
        if not all(0 <= weight < math.inf for weight in found) or not any(found):
            told = ", ".join(f"{weight:g}" for weight in found)
            raise ValueError(f"weights are {told}: expected finite numbers, 0 or more, and one at least above 0")
        return found

    @property
    def whole(self) -> str:
        """Which losses look at what of a whole batch, in words; empty where all look at each pair by itself."""
        found = {name: LOSSES[name].whole for name, _ in self.terms}
        return " and ".join(f"{name} looks at {what}" for name, what in found.items() if what)

    def rewards(self, four: Four, chosen: Int64[Tensor, "B"], rejected: Int64[Tensor, "B"]) -> tuple[Vector, Vector]:
        """The implicit rewards of both sides, each [B]: beta (log pi - log ref), summed over tokens.

        Where no loss looks at the reference they are beta log pi, per token where each of the losses is (Meng et al.
        2024, eq. 4). trl has it so, too: DPOTrainer sums, CPOTrainer has the mean over tokens for simpo.

        Args:
            four: the log-probabilities, summed over tokens.
            chosen: tokens of the chosen.
            rejected: tokens of the rejected.
        """
        losses = [LOSSES[name] for name, _ in self.terms]
        if self.config.reference_free or all(loss.kind == "unreferenced" for loss in losses):
            four = vectors.reference_free(four)
            if all(loss.per_token for loss in losses):
                four = vectors.per_token(four, chosen, rejected)
        good, bad = four.ratios
        return self.config.beta * good, self.config.beta * bad

    def __call__(
        self, four: Four, chosen: Int64[Tensor, "B"] | None = None, rejected: Int64[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B"]:
        """The loss of each pair.

        Args:
            four: the log-probabilities, summed over tokens.
            chosen: tokens of the chosen, which losses per token need.
            rejected: tokens of the rejected.
        """
        asked = vectors.reference_free(four) if self.config.reference_free else four
        if self.config.divergence != "reverse-kl":
            asked = vectors.diverging(asked, self.config.divergence, self.config.alpha)
        total = self.config.anchor * -four.pi_c
        for name, weight in self.terms:
            loss, seen = LOSSES[name], asked
            if loss.per_token:
                if chosen is None or rejected is None:
                    raise ValueError("a loss per token needs the lengths of the completions")
                seen = vectors.per_token(seen, chosen, rejected)
            smoothed = loss.smooths and self.config.smoothing is not None
            options = {"smoothing": self.config.smoothing} if smoothed else {}
            total = total + weight * loss(*seen, self.config.beta, **options)
        return total
