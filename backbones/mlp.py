"""The multilayer perceptron: affine map, norm, activation, and again; and the residual one, which adds to what was.

    MLP            h <- activation(norm(W h + b)) for each hidden layer;    output: W h + b
    ResidualMLP    h <- W x + b;    h <- h + W'' activation(W' norm(h)) for each block;    output: W norm(h) + b

Its layers read their weights' rank: with weights `[out, in]` they are torch's own, with weights `[R, out, in]` they
are R layers side by side in one batched matrix product. `backbones.replicas` relies on that (the mark is
`stacks = True`); it is several times cheaper than `torch.vmap` at the sizes agents use.

Source: Rumelhart, Hinton & Williams, "Learning representations by back-propagating errors", Nature 1986;
layer normalisation: Ba, Kiros & Hinton, arXiv:1607.06450, eq. 4; residual blocks with the norm before them: He et al.
2016, "Identity mappings", fig. 4e; for agents SimBa, Lee et al. 2024, sec. 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from backbones.shape import wrong

NARROW = (2, 3, 4, 8)  # inputs; MKL's product with so few columns takes 2 to 5 times as long as the one turned over,
# and of these widths alone the turned one adds up in the same order however many replicas there are


class Linear(nn.Linear):
    """y = W x + b with W `[out, in]` and x `[..., in]`, or with W `[R, out, in]` and x `[R, B, in]`."""

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        if self.weight.ndim == 2:
            return linear(x, self.weight, self.bias)
        if torch.is_grad_enabled():
            return Affine.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return torch.baddbmm(self.bias.unsqueeze(-2), x, self.weight.mT)  # [R, 1, out] + [R, B, in] [R, in, out]


class Affine(torch.autograd.Function):
    """y = W x + b for R of them. Autograd's own gradient of W comes transposed, and costs a copy of all weights.

    What it cannot: the transforms of `torch.func` (`jacrev`, `grad`, `vmap`) have no rule for it. The form that has one
    (`setup_context` apart from `forward`) makes a training loop of small networks a tenth slower.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.baddbmm(bias.unsqueeze(-2), x, weight.mT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        # Under autocast what came out, and so its gradient, is of lower precision than what went in.
        x, weight = (saved.to(grad.dtype) for saved in ctx.saved_tensors)
        into = torch.bmm(grad, weight) if ctx.needs_input_grad[0] else None  # [R, B, out] [R, out, in]
        if weight.shape[-1] in NARROW:
            return into, torch.bmm(x.mT, grad).mT, grad.sum(-2)  # [R, in, B] [R, B, out]
        return into, torch.bmm(grad.mT, x), grad.sum(-2)  # [R, out, B] [R, B, in]


class LayerNorm(nn.LayerNorm):
    """(x - mean) / std over the last dimension, times gain plus shift; gain and shift may be `[R, D]`."""

    one: Tensor
    zero: Tensor

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__(width, eps)
        # torch's kernel without gain and shift takes twice as long as with those that change nothing.
        self.register_buffer("one", torch.ones(width), persistent=False)
        self.register_buffer("zero", torch.zeros(width), persistent=False)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        if self.weight.ndim == 1:
            return super().forward(x)
        normal = layer_norm(x, self.normalized_shape, self.one, self.zero, self.eps)
        return torch.addcmul(self.bias.unsqueeze(-2), normal, self.weight.unsqueeze(-2))


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
        self.inputs, self.activation = inputs, activation
        widths = [inputs, *hidden]
        self.hidden = nn.ModuleList(Linear(i, o) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(LayerNorm(o) if norm else nn.Identity() for o in hidden)
        self.output = Linear(widths[-1], outputs)

    def forward(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *out"]:
        """`[B, *shape]` -> `[B, outputs]`; held R times: `[R, B, *shape]` -> `[R, B, outputs]`."""
        x = _flat(x, self.output.weight.ndim - 1, self.inputs)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = self.activation(norm(layer(x)))
        return self.output(x)


class Residual(nn.Module):
    """h + down(activation(up(norm(h)))); down starts at zero, so that the block starts as h."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.norm, self.up, self.down = LayerNorm(width), Linear(width, hidden), Linear(hidden, width)

    def initialise(self, generator: torch.Generator) -> None:
        self.down.weight.zero_()
        self.down.bias.zero_()

    def forward(self, h: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return h + self.down(self.activation(self.up(self.norm(h))))


class ResidualMLP(nn.Module):
    """A perceptron of `blocks` residual blocks, which may be many: each begins as the identity.

    Args:
        inputs: numbers in one sample; whatever follows the batch dimension is flattened into them.
        width: of the stream that the blocks add to.
        blocks: how many; two layers each.
        outputs: numbers out, `[B, outputs]`.
        activation: applied between the two layers of a block.
        expansion: width of the layer between, in units of `width`.
    """

    stacks = True

    def __init__(
        self,
        inputs: int,
        width: int,
        blocks: int,
        outputs: int,
        *,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.input = Linear(inputs, width)
        self.blocks = nn.ModuleList(Residual(width, expansion * width, activation) for _ in range(blocks))
        self.norm = LayerNorm(width)
        self.output = Linear(width, outputs)

    def forward(self, x: Float[Tensor, "B *shape"]) -> Float[Tensor, "B *out"]:
        """`[B, *shape]` -> `[B, outputs]`; held R times: `[R, B, *shape]` -> `[R, B, outputs]`."""
        h = self.input(_flat(x, self.output.weight.ndim - 1, self.inputs))
        for block in self.blocks:
            h = block(h)
        return self.output(self.norm(h))


def _flat(x: Tensor, batch: int, inputs: int) -> Tensor:
    """[(R,) B, inputs]: all that follows the `batch` first dimensions in one; ShapeError where that is not `inputs`."""
    if x.ndim <= batch or x.shape[batch:].numel() != inputs:
        raise wrong("MLP: x", x, f"[{'R, ' * (batch - 1)}B, ...] with {inputs} numbers a sample")
    return x.flatten(batch)
