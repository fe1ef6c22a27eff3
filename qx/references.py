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
    """Where the reference's answers cannot be kept, that is one dim line, said once and as soon as it is found."""
    said = set[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("always", CacheWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            if not issubclass(category, CacheWarning):
                usual(message, category, *rest)
            elif str(message) not in said:
                said.add(str(message))
                console.err.print(f"[dim]{console.escape(str(message))}[/]", soft_wrap=True)

        warnings.showwarning = show  # type: ignore[assignment]  # what it is called with, by place
        yield
