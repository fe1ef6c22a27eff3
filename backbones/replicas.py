"""R copies of one network in one module and one batched forward.

The weights are one matrix `[R, P]`: row r is network r, all its parameters end to end (padded to a multiple of 64,
so that each row starts on a cache line). So an optimiser steps one tensor, the norm of each replica's gradient is
one reduction over dimension 1, and a target network is one copy; autograd gathers the gradients by itself, since the
parameters are views of the matrix. A replica's loss touches its own row only: the gradient of the sum over replicas
is every replica's own gradient, and an elementwise optimiser (SGD, Adam) on the matrix is R separate optimisers.

A network whose layers accept weights with a leading replica dimension (`stacks = True`, as `backbones.mlp.MLP` and
`backbones.recurrent.Recurrent`) is called once, with all weights; any other runs under `torch.vmap`, which turns its
layers into grouped ones: a CNN, a Transformer, a network with a recurrent layer in it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from backbones.initialise import build
from backbones.moe import MoE
from backbones.shape import wrong

ALIGN = 64  # floats; a whole number of vector registers and cache lines


class Replicas(nn.Module):
    """R networks of one kind, `weights [R, P]`.

    Args:
        make: constructs one network. Its buffers (tables of positions) are shared by all; it must not train them.
        generators: one for each replica, the source of its first weights.

    Raises:
        ValueError: when there is no generator, or the network keeps running statistics (a BatchNorm): a forward pass
            would change them, and there is one set of buffers for all replicas; or it is a mixture of experts, which
            sorts its tokens by their numbers: no shape is the same for all replicas.
    """

    def __init__(self, make: Callable[[], nn.Module], generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        if not generators:
            raise ValueError("Replicas needs one generator a replica, and got none")
        networks = [build(make, generator) for generator in generators]
        for name, module in networks[0].named_modules():
            if getattr(module, "running_mean", None) is not None:
                raise ValueError(f"Replicas: {name} ({type(module).__name__}) keeps running statistics, expected none")
            if isinstance(module, MoE):
                raise ValueError(f"Replicas: {name} (MoE) reads its own numbers to sort them by expert, expected none")
        parameters = [dict(network.named_parameters()) for network in networks]
        self._rows = len(networks)
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
        return self._rows

    @property
    def template(self) -> nn.Module:
        """The network that runs, without weights of its own."""
        return self._template[0]

    def forward(self, x: Shaped[Tensor, "R B *shape"], *more: Shaped[Tensor, "R *_"] | None) -> Any:
        """Network r on x[r], for all r at once: what the network returns, each tensor with a leading R.

        Args:
            x: [R, B, ...], of whatever type the network reads.
            more: what else the network takes, also one for each replica (states, resets, positions), or None.

        Raises:
            ShapeError: where x is not one batch for each replica.
        """
        if x.ndim < 2 or x.shape[0] != self._rows:
            raise wrong("Replicas: x", x, f"[{self._rows}, B, ...]")
        views = self._views()
        try:
            if self._stacks:
                return self._call(views, x, *more)
            along = (0, 0, *(None if y is None else 0 for y in more))
            # vmap has no rule for the fused kernels of attention: it would loop over them, or refuse a bias that learns
            with sdpa_kernel(SDPBackend.MATH):
                return torch.vmap(self._call, along)(views, x, *more)
        finally:
            self._fill([None] * len(views))  # hold no graph, so that the module can be copied

    def replica(self, r: int) -> dict[str, Tensor]:
        """Network r's weights under the names that `make()` gives them: `make().load_state_dict(...)` takes them."""
        return {name: view[r].detach().clone() for name, view in zip(self.names, self._views(), strict=True)}

    def network(self, r: int) -> nn.Module:
        """Network r by itself, with weights of its own: what `make()` gave, further on."""
        alone = copy.deepcopy(self._template[0])
        for name, weight in self.replica(r).items():
            path, _, leaf = name.rpartition(".")
            owner = alone.get_submodule(path)
            owner.__dict__.pop(leaf, None)  # what stands in for it here
            owner.register_parameter(leaf, nn.Parameter(weight))
        return alone

    def _views(self) -> list[Tensor]:
        parts = self.weights.split_with_sizes(self.sizes, dim=1)[:-1]  # each [R, numel]
        return [part.view(self._rows, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def _call(self, weights: list[Tensor], *inputs: Tensor | None) -> Any:
        self._fill(weights)
        return self._template[0](*inputs)

    def _fill(self, weights: Sequence[Tensor | None]) -> None:
        for (owner, name), weight in zip(self._slots, weights, strict=True):
            owner.__dict__[name] = weight

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Replicas:
        self._template[0]._apply(fn)  # type: ignore[no-untyped-call]  # torch leaves it untyped; its buffers move along
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # likewise
        return self


def under_vmap(x: Tensor) -> bool:
    """Whether x stands for R tensors side by side: what a layer asks that does something vmap has no rule for."""
    return is_batchedtensor(x)


def _detach(network: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Take the parameter `name` out of `network`; an attribute of that name will stand in for it. Returns where."""
    path, _, leaf = name.rpartition(".")
    owner = network.get_submodule(path)
    del owner._parameters[leaf]
    return owner, leaf
