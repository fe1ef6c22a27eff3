"""The four vectors [B] that every preference loss is a function of, and what may be done to them before.

    pi_c, pi_r      log pi(chosen | prompt), log pi(rejected | prompt) under the policy that is trained
    ref_c, ref_r    the same under the reference, which stays fixed

Where they come from is not known here: a language model, a policy on a grid, or a denoiser's surrogate. Three things
that papers present as losses of their own are done to the vectors, and then any loss may follow:

    reference-free      both references 0: only the policy's own preference counts
    another divergence  the policy is held to its reference by D_f instead of the reverse KL, that is by f'(u) of the
                        ratio u = pi / ref where DPO has log u (Wang et al. 2023, "Beyond reverse KL", eq. 8)
    per token           all four divided by the lengths of their completions (IPO as its authors run it, SimPO, ORPO)

Several are done in this order. D_f is of policies over whole completions, and so u is the ratio of a whole one: what is
divided by the length is f'(u), as in trl.

    reverse KL  log u               forward KL  1 - 1 / u
    JS          log 2u / (1 + u)    alpha       (1 - u^-alpha) / alpha,  0 < alpha < 1; reverse KL at 0, forward at 1

Constants of f' cancel in losses of a difference, but not where lengths divide them; they are chosen so that f'(1) = 0,
and a policy that is its reference prefers nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, where, zeros_like
from torch.nn.functional import logsigmoid

Vector = Float[Tensor, "B"]
Divergence = Literal["reverse-kl", "forward-kl", "js", "alpha"]
DIVERGENCES: tuple[Divergence, ...] = ("reverse-kl", "forward-kl", "js", "alpha")
LARGE = 30.0
"""Beyond it exp goes on as a straight line: the square of e^30 times a thousand is still a number in float32."""


class Four(NamedTuple):
    """Log-probabilities in nats, each [B]."""

    pi_c: Vector
    pi_r: Vector
    ref_c: Vector
    ref_r: Vector

    @property
    def ratios(self) -> tuple[Vector, Vector]:
        """log pi / ref of the chosen and of the rejected: the implicit rewards over beta."""
        return self.pi_c - self.ref_c, self.pi_r - self.ref_r


def per_token(four: Four, chosen: Int64[Tensor, "B"], rejected: Int64[Tensor, "B"]) -> Four:
    """Means over tokens, of completions of those lengths (an empty one counts as one token)."""
    c, r = chosen.clamp(min=1), rejected.clamp(min=1)
    return Four(four.pi_c / c, four.pi_r / r, four.ref_c / c, four.ref_r / r)


def reference_free(four: Four) -> Four:
    """The same policy beside a reference that finds everything equally likely."""
    return Four(four.pi_c, four.pi_r, zeros_like(four.ref_c), zeros_like(four.ref_r))


def exponential(x: Vector) -> Vector:
    """exp x, and from `LARGE` on its tangent there: finite, with a slope, where a policy has left its reference."""
    return x.clamp(max=LARGE).exp() * (1 + (x - LARGE).clamp(min=0.0))


def diverging(four: Four, divergence: Divergence, alpha: float = 0.5) -> Four:
    """Vectors whose differences are f'(u) of each side. The references are in them, and 0 themselves.

    Raises ValueError for a divergence that does not exist, or an alpha outside (0, 1).
    """
    if divergence == "alpha" and not 0 < alpha < 1:
        raise ValueError(f"alpha is {alpha:g}: expected a number between 0 (reverse KL) and 1 (forward KL)")
    slopes: dict[str, Callable[[Tensor], Tensor]] = {
        "reverse-kl": lambda ratio: ratio,
        "forward-kl": lambda ratio: 1 - exponential(-ratio),
        "js": lambda ratio: math.log(2) + logsigmoid(ratio),
        "alpha": lambda ratio: (1 - exponential(-alpha * ratio)) / alpha,
    }
    if divergence not in slopes:
        raise ValueError(f"divergence {divergence!r}: expected one of {', '.join(slopes)}")
    chosen, rejected = (slopes[divergence](ratio) for ratio in four.ratios)
    return Four(chosen, rejected, zeros_like(chosen), zeros_like(rejected))


def log1mexp(x: Vector) -> Vector:
    """log(1 - e^x) for x < 0, exact at both ends (Maechler 2012, "Accurately computing log(1 - exp(-|a|))")."""
    near, far = x.clamp(min=-math.log(2)), x.clamp(max=-math.log(2))
    return where(x > -math.log(2), (-near.expm1()).log(), (-far.exp()).log1p())
