"""The multilayer perceptron: affine map, norm, activation, and again.

Its layers read their weights' rank: with weights `[out, in]` they are torch's own, with weights `[R, out, in]` they
are R layers side by side in one batched matrix product. `backbones.replicas` relies on that (the mark is
`stacks = True`); it is several times cheaper than `torch.vmap` at the sizes agents use.

Source: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", Nature 1986;
layer normalisation: Ba, Kiros & Hinton, arXiv:1607.06450, eq. 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear


class Linear(nn.Linear):
    """y = W x + b with W `[out, in]` and x `[..., in]`, or with W `[R, out, in]` and x `[R, B, in]`."""

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        if self.weight.ndim == 2:
            return linear(x, self.weight, self.bias)
        return torch.baddbmm(self.bias.unsqueeze(-2), x, self.weight.mT)  # [R, 1, out] + [R, B, in] [R, in, out]


class LayerNorm(nn.LayerNorm):
    """(x - mean) / std over the last dimension, times gain plus shift; gain and shift may be `[R, D]`."""

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        if self.weight.ndim == 1:
            return super().forward(x)
        normal = layer_norm(x, self.normalized_shape, eps=self.eps)
        return normal * self.weight.unsqueeze(-2) + self.bias.unsqueeze(-2)


class MLP(nn.Module):
    """A perceptron with `len(hidden)` hidden layers; the last layer is affine.

    Args:
        inputs: numbers in one sample; whatever follows the batch dimension is flattened into them.
        hidden: width of each hidden layer. None: a linear model.
        outputs: numbers out, `[B, outputs]`.
        activation: applied after every hidden layer.
        norm: layer-normalise before every activation.
    """

    stacks = True  # weights may carry a leading replica dimension

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        *,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.activation = activation
        widths = [inputs, *hidden]
        self.hidden = nn.ModuleList(Linear(i, o) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(LayerNorm(o) if norm else nn.Identity() for o in hidden)
        self.output = Linear(widths[-1], outputs)

    def forward(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *out"]:
        """`[B, *shape]` -> `[B, outputs]`; held R times: `[R, B, *shape]` -> `[R, B, outputs]`."""
        x = x.flatten(self.output.weight.ndim - 1)  # [(R,) B, inputs]
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = self.activation(norm(layer(x)))
        return self.output(x)
