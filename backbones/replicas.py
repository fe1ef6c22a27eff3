"""R copies of one network in one module and one batched forward.

The weights are one matrix `[R, P]`: row r is network r, all its parameters end to end (padded to a multiple of 64,
so that each row starts on a cache line). So an optimiser steps one tensor, the norm of each replica's gradient is
one reduction over dimension 1, and a target network is one copy; autograd gathers the gradients by itself, since the
parameters are views of the matrix. A replica's loss touches its own row only: the gradient of the sum over replicas
is every replica's own gradient, and an elementwise optimiser (SGD, Adam) on the matrix is R separate optimisers.

A network whose layers accept weights with a leading replica dimension (`stacks = True`, as `backbones.mlp.MLP`) is
called once, with all weights; any other runs under `torch.vmap`, which turns its layers into grouped ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from backbones.initialise import build

ALIGN = 64  # floats; a whole number of vector registers and cache lines


class Replicas(nn.Module):
    """R networks of one kind, `weights [R, P]`.

    Args:
        make: constructs one network. Its buffers (tables of positions) are shared by all; it must not train them.
        generators: one for each replica, the source of its first weights.

    Raises:
        ValueError: when there is no generator.
    """

    def __init__(self, make: Callable[[], nn.Module], generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        if not generators:
            raise ValueError("Replicas needs one generator a replica, and got none")
        networks = [build(make, generator) for generator in generators]
        parameters = [dict(network.named_parameters()) for network in networks]
        self.names = list(parameters[0])
        self.shapes = [p.shape for p in parameters[0].values()]
        sizes = [p.numel() for p in parameters[0].values()]
        self.sizes = [*sizes, -sum(sizes) % ALIGN]
        rows = [torch.cat([p.detach().flatten() for p in own.values()]) for own in parameters]
        self.weights = nn.Parameter(nn.functional.pad(torch.stack(rows), (0, self.sizes[-1])))
        template = networks[0].requires_grad_(False)
        self._slots = [_detach(template, name) for name in self.names]
        self._template = (template,)  # in a tuple, so that it is no submodule: its weights live in the matrix
        self._stacks = bool(getattr(template, "stacks", False))

    def __len__(self) -> int:
        return len(self.weights)

    def forward(self, x: Shaped[Tensor, "R B *shape"]) -> Float[Tensor, "R B *out"]:
        """Network r on x[r], for all r at once."""
        views = self._views()
        try:
            return self._call(views, x) if self._stacks else torch.vmap(self._call)(views, x)
        finally:
            self._fill([None] * len(views))  # hold no graph, so that the module can be copied

    def replica(self, r: int) -> dict[str, Tensor]:
        """Network r's weights under the names that `make()` gives them: `make().load_state_dict(...)` takes them."""
        return {name: view[r].detach().clone() for name, view in zip(self.names, self._views(), strict=True)}

    def _views(self) -> list[Tensor]:
        rows = len(self.weights)
        parts = self.weights.split_with_sizes(self.sizes, dim=1)[:-1]  # each [R, numel]
        return [part.view(rows, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _call(self, weights: list[Tensor], x: Tensor) -> Tensor:
        self._fill(weights)
        return self._template[0](x)

    def _fill(self, weights: Sequence[Tensor | None]) -> None:
        for (owner, name), weight in zip(self._slots, weights, strict=True):
            owner.__dict__[name] = weight

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Replicas:
        self._template[0]._apply(fn)  # type: ignore[no-untyped-call]  # torch leaves it untyped; its buffers move along
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # likewise
        return self


def _detach(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Take the parameter `name` out of `network`; an attribute of that name will stand in for it. Returns where."""
    path, _, leaf = name.rpartition(".")
    owner = network.get_submodule(path)
    del owner._parameters[leaf]
    return owner, leaf
