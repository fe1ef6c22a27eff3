"""The reference, asked before a training on preferences begins: with a bar, and one line where nothing can be kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from generative.preference.data import PairData
from generative.preference.reference import CacheWarning, reference, usual_folder
from generative.shares import Precision
from lab import console


def told(
    model: nn.Module,
    pairs: PairData,
    description: Mapping[str, Any],
    *,
    device: torch.device,
    precision: Precision,
    of: str = "",
) -> Float[Tensor, "N 2"]:
    """`reference` of all pairs, from the cache or for it; `of` says in the bar which pairs they are."""
    with console.progress(f"the reference reads pairs{of}", len(pairs)) as bar:
        return reference(
            model,
            pairs,
            description,
            device=device,
            precision=precision,
            folder=usual_folder(),
            progress=bar.update,
        )


@contextmanager
def without_a_cache() -> Iterator[None]:
    """Where the reference's answers cannot be kept, that is one dim line, however often it is found."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CacheWarning)
        yield
    for line in dict.fromkeys(str(each.message) for each in said if issubclass(each.category, CacheWarning)):
        console.err.print(f"[dim]{console.escape(line)}[/]", soft_wrap=True)
