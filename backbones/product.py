"""x W^T on the CPU, where torch's default is slow for large W.

torch multiplies float32 by MKL there. For the tall matrix of a vocabulary (V x D) that reached 100 of 180 GFLOP/s on
the machine of docs/notebook.md; oneDNN, which torch carries too and its own compiler calls, reached 140 to 190. So a
product without gradients goes to oneDNN where that pays, and everything else (gradients, CUDA, other types, small
matrices, a torch without oneDNN) to torch's own `linear`. The two agree to rounding.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

LARGE = 2**17  # weights from which it pays: below, the 12 us that a call of oneDNN takes are more than it saves


def able(weight: Tensor) -> bool:
    """Whether oneDNN can multiply by this weight as it is."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def multiply(x: Float[Tensor, "*B K"], weight: Tensor, bias: Float[Tensor, "N"] | None = None) -> Tensor:
    """x W^T + bias by oneDNN, without gradients; `weight` is [N, K], of any strides, or was packed."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def linear(x: Float[Tensor, "*B K"], weight: Float[Tensor, "N K"]) -> Float[Tensor, "*B N"]:
    """x W^T; by oneDNN where no gradient is asked for and it pays."""
    recorded = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if recorded or x.dtype != weight.dtype or x.shape[:-1].numel() < 2 or weight.numel() < LARGE or not able(weight):
        return functional.linear(x, weight)
    return multiply(x, weight)
