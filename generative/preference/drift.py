"""How far a policy has gone from its reference: KL(policy || reference) in nats a completion, by its own completions.

    d_t = log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t),    y ~ pi(. | x)
    KL  = E[sum_t d_t] = E[sum_t k3(d_t)],                   k3(d) = (ref/pi - 1) - log(ref/pi) = (e^-d - 1) + d

Both means are unbiased: under pi the mean of ref/pi - 1 is 0, at every token. k3 has the smaller variance while the two
are near each other, because ref/pi - 1 = -d + d^2/2 - ... takes away what of d only averages out; it is never negative.
Where they are far apart ref/pi is now and then huge, and the plain mean is the one to trust.

Completions are drawn from the policy at temperature 1, with their ends, as `generative.preference.best.drawn` and
`drawn_pretrained` do, by (seed, prompt, draw). One that has not ended at the limit counts as far as it goes. What is
found is then the KL of as many tokens, which that of whole completions can only exceed.

Source: Schulman 2020, "Approximating KL divergence" (joschu.net/blog/kl-approx.html), k1 and k3. Departure: k3 is taken
of each token and summed, as of a whole completion ref/pi would be a product of hundreds of such ratios.

Key: P prompts, n completions of each, N = P n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from generative.preference.data import Judge, joined


@dataclass(frozen=True)
class Drift:
    """Two estimates of the mean over prompts of KL(policy || reference), in nats a completion.

    A standard error is the deviation over the root of the number of completions. Where there are several of a prompt it
    is a little too large: the differences between prompts are in it, too.
    """

    kl: float
    """The mean of log pi - log ref."""
    error: float
    """Its standard error."""
    k3: float
    """The mean of k3, summed over tokens."""
    k3_error: float
    completions: int
    """How many were drawn."""


def drift(
    policy: Judge,
    reference: Judge,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[Sequence[int]]],
    *,
    device: torch.device,
) -> Drift:
    """Ask both for what the policy said.

    Args:
        policy: in the mode it is in.
        reference: likewise.
        prompts: tokens of each, one or more.
        completions: of each prompt, drawn from the policy: equally many, each one token or more.
        device: of both models.

    Raises:
        ValueError: for fewer than two completions in all, unequally many of the prompts, or an empty one.
    """
    count, each = sum(map(len, completions)), {len(said) for said in completions}
    if count < 2 or len(each) > 1:
        raise ValueError(f"{count} completions, {sorted(each)} of a prompt: expected 2 in all, and as many of each")
    values = ratios(policy, reference, prompts, completions, device=device)  # [2, N]
    (kl, k3), (error, k3_error) = values.mean(dim=1).tolist(), (values.std(dim=1) / math.sqrt(count)).tolist()
    return Drift(kl, error, k3, k3_error, count)


@torch.no_grad()
def ratios(
    policy: Judge,
    reference: Judge,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[Sequence[int]]],
    *,
    device: torch.device,
    at_once: int = 64,
) -> Float64[Tensor, "2 N"]:
    """Of each completion the sums of d and of k3(d), in nats, prompt after prompt.

    Args:
        policy: in the mode it is in.
        reference: likewise.
        prompts: tokens of each.
        completions: of each prompt, equally many and one at least.
        device: of both models.
        at_once: completions in a row, or those of one prompt where they are more.
    """
    found, step = list[Tensor](), max(1, at_once // len(completions[0]))
    for first in range(0, len(prompts), step):
        heads, tails = prompts[first : first + step], completions[first : first + step]
        tokens, row = joined(heads, tails, device)
        d = policy.judge(tokens, row).double() - reference.judge(tokens, row).double()  # [M], in nats
        found.append(torch.stack([row.sums(d), row.sums(torch.expm1(-d) + d)]).cpu())
    return torch.cat(found, dim=1)
