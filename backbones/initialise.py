"""Weights from an explicit generator: the networks' only source of randomness.

torch's layers draw their first weights from the global generator when they are constructed. `build` constructs
without letting that show, then draws every weight again from the generator it is given, layer by layer in the
order of `modules()`:

* a module with a method `initialise(generator)` fills itself, after its children (zeroed outputs and the like);
* linear and convolution layers get torch's own default, uniform in +-1/sqrt(fan_in) (LeCun et al. 1998, sec. 4.6);
* embeddings get N(0, 1); normalisations scale 1 and shift 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Initialised(Protocol):
    """A module that fills its own weights."""

    def initialise(self, generator: torch.Generator) -> None: ...


LINEAR = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def build(make: Callable[[], M], generator: torch.Generator) -> M:
    """`make()` with weights drawn from `generator`; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        module = make()
    initialise(module, generator)
    return module


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every weight of `module` again. Raises TypeError for a layer with weights that no rule covers."""
    for child in module.children():
        initialise(child, generator)
    if isinstance(module, Initialised):
        module.initialise(generator)
    elif isinstance(module, LINEAR):
        bound = 1 / math.sqrt(module.weight[0].numel())
        for weight in (module.weight, module.bias):
            if weight is not None:
                weight.uniform_(-bound, bound, generator=generator)
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(generator=generator)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm | nn.RMSNorm):
        if module.weight is not None:
            module.weight.fill_(1)
        bias = getattr(module, "bias", None)  # RMSNorm has none
        if isinstance(bias, Tensor):
            bias.zero_()
    elif next(module.parameters(recurse=False), None) is not None:
        raise TypeError(
            f"{type(module).__name__} has weights but neither a rule here nor a method initialise(generator)"
        )
