"""What a batch looked like, in a few numbers for each replica: what a person wants to know of one that went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def described(
    seen: Mapping[str, Float[Tensor, "R *_"]], counts: Bool[Tensor, "R *_"] | None = None
) -> dict[str, Float[Tensor, "R"]]:
    """Mean, `_min` and `_max` of each column over all but its first dimension; a number that is none shows in all.

    Args:
        seen: columns of one shape, by name.
        counts: which numbers are meant; by default all.
    """
    columns = torch.stack([column.detach().flatten(1) for column in seen.values()])  # [columns, R, B]
    if counts is None:
        (low, high), mean = columns.aminmax(dim=-1), columns.mean(-1)
    else:
        meant = counts.flatten(1)
        low, high = columns.where(meant, torch.inf).amin(-1), columns.where(meant, -torch.inf).amax(-1)
        mean = columns.where(meant, 0).sum(-1) / meant.sum(-1).clamp(min=1)
    kinds = {"": mean, "_min": low, "_max": high}
    return {name + end: numbers[i] for i, name in enumerate(seen) for end, numbers in kinds.items()}
