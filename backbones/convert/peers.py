"""What all conversions share: refusing what is not known, renaming, and filling a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)
Weights = dict[str, Tensor]


def expect(peer: str, config: Mapping[str, Any], known: Mapping[str, Sequence[Any]]) -> None:
    """Raise ValueError for the first key whose value is none of the known ones; an absent key is taken as known."""
    for key, values in known.items():
        if key in config and config[key] not in values:
            choices = " or ".join(repr(value) for value in values)
            raise ValueError(f"{peer}: {key} is {config[key]!r}; known here: {choices}")


def need(peer: str, config: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Raise ValueError for the first key that is absent or None: what its absence means we will not guess."""
    for key in keys:
        if config.get(key) is None:
            raise ValueError(f"{peer}: {key} is not given; expected a number")


def under(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    """The weights whose names begin with `prefix.`, without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in weights.items() if name.startswith(prefix + ".")}


def beneath(weights: Mapping[str, Tensor], prefix: str) -> Weights:
    """The weights with `prefix.` before their names: the inverse of `under`."""
    return {f"{prefix}.{name}": tensor for name, tensor in weights.items()}


def fill(make: Callable[[], M], weights: Mapping[str, Tensor]) -> M:
    """`make()` with copies of these weights, in their own type; nothing is drawn.

    Raises ValueError when a weight is missing, not known, or of another shape.
    """
    with torch.device("meta"):
        module = make()
    wanted = module.state_dict()
    missing, unknown = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    if missing or unknown:
        what = "missing" if missing else "not known"
        raise ValueError(f"{type(module).__name__}: weights {', '.join((missing or unknown)[:4])} are {what}")
    for name, tensor in weights.items():
        if tensor.shape != wanted[name].shape:
            sizes = f"{list(tensor.shape)}, expected {list(wanted[name].shape)}"
            raise ValueError(f"{type(module).__name__}: weight {name} has shape {sizes}")
    module.load_state_dict({name: tensor.detach().clone() for name, tensor in weights.items()}, assign=True)
    return module
