"""The same Transformer, its large weights laid out for many products of few rows: what generation is made of.

A step of generation multiplies every weight by one row for each text. For one row MKL reads a tall matrix fastest when
it is transposed: 25 GB/s against 7 for a vocabulary of 32,000. Several rows are multiplied fastest by oneDNN, from
blocks that it orders itself, once. Small weights, norms and embeddings are shared with the model.
"""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones.product import LARGE, able, multiply
from backbones.transformer import Transformer

TALL = 2**21  # weights from which one row gains by the transposed matrix


class Packed(nn.Module):
    """x W^T + bias for x of about `rows` rows in all. A copy of W, without gradients."""

    def __init__(self, weight: Float[Tensor, "N K"], bias: Float[Tensor, "N"] | None, rows: int) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.rows, self.bias = rows, bias
        self.weight = weight.t().contiguous().t() if rows == 1 else _blocks(weight, rows)

    def forward(self, x: Float[Tensor, "*B K"]) -> Float[Tensor, "*B N"]:
        return (functional.linear if self.rows == 1 else multiply)(x, self.weight, self.bias)


def _blocks(weight: Tensor, rows: int) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def pays(weight: Float[Tensor, "N K"], rows: int) -> bool:
    """Whether packing a weight makes products of so many rows faster."""
    return able(weight) and weight.numel() >= (TALL if rows == 1 else LARGE)


@torch.no_grad()
def packed(model: Transformer, rows: int) -> Transformer:
    """`model` for steps of about `rows` positions in all (any number works): equal up to rounding, without gradients.

    Packed weights are copies: whoever trains the model packs it again. Where nothing gains, it is the model itself.
    """
    linears = [m for m in model.modules() if isinstance(m, nn.Linear) and pays(m.weight, rows)]
    tied = model.head is None and pays(model.embedding.weight, rows)
    if not linears and not tied:
        return model
    same: dict[int, object] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    same |= {id(m): Packed(m.weight.detach(), m.bias, rows) for m in linears}
    made = copy.deepcopy(model, same)  # what `same` names is taken from there
    if tied:
        made.head = Packed(model.embedding.weight.detach(), None, rows)
    return made
