"""Nadaraya-Watson regression, which is attention: a mean of the values seen, weighted by how near their keys are.

    f(q) = sum_s K(|q - k_s| / h) v_s / sum_s K(|q - k_s| / h)          Nadaraya 1964; Watson 1964, eq. 2.1

Every kernel is a softmax of its logarithm, so masks and empty rows are those of all attention. Where the kernel is
Gaussian, |q|^2 cancels in -|q - k|^2 / 2h^2, and what remains is dot-product attention with a fine on long keys:

    softmax_s((q . k_s - |k_s|^2 / 2) / h^2)

Key: B batch, T queries, S keys, D their features, E those of the values, h the bandwidth: how far "near" reaches.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from backbones.additive import weigh
from backbones.attention import attend
from backbones.masks import FULL, Mask
from backbones.shape import wrong

KernelName = Literal["gaussian", "epanechnikov", "boxcar"]


def gaussian(square: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """log exp(-u^2 / 2)."""
    return -square / 2


def epanechnikov(square: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """log max(0, 1 - u^2) (Epanechnikov 1969)."""
    near = square < 1
    return torch.where(near, torch.log1p(-square.where(near, 0)), -torch.inf)  # no gradient of a log at 0


def boxcar(square: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """log of 1 within the bandwidth, 0 beyond: the mean of the neighbours."""
    return torch.where(square <= 1, 0.0 * square, -torch.inf)


KERNELS = {"gaussian": gaussian, "epanechnikov": epanechnikov, "boxcar": boxcar}  # log K of u^2, up to a constant


def nadaraya_watson(
    q: Float[Tensor, "B T D"],
    k: Float[Tensor, "B S K"],
    v: Float[Tensor, "B S E"],
    bandwidth: float | Float[Tensor, ""],
    kernel: KernelName = "gaussian",
    mask: Mask = FULL,
) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B T S"]]:
    """The regression at q, and the weights it gives to the points (k, v); a query with none in reach gets zeros.

    Args:
        q: where to predict.
        k: where values are known; K must be D.
        v: the values.
        bandwidth: h, in units of q and k, above 0; a tensor learns. Larger is smoother.
        kernel: one of `KERNELS`.
        mask: which points a query may use.

    Raises:
        ShapeError: where keys and queries differ in width, or the batches differ.
        ValueError: for a kernel that does not exist, a bandwidth not above 0, or a mask that differs by head.
    """
    if q.shape[-1] != k.shape[-1]:
        raise wrong("nadaraya_watson: k", k, f"[B, S, {q.shape[-1]}], as wide as q")
    if not len(q) == len(k) == len(v):
        raise wrong("nadaraya_watson: k", k, f"[{len(q)}, S, {q.shape[-1]}], a row for each of queries and values")
    if kernel not in KERNELS:
        raise ValueError(f"kernel {kernel!r}: expected one of {', '.join(KERNELS)}")
    if bandwidth <= 0:
        raise ValueError(f"bandwidth {float(bandwidth)}: expected a number above 0")
    square = ((q[:, :, None] - k[:, None]) / bandwidth).square().sum(dim=-1)  # [B, T, S], u^2
    score = KERNELS[kernel](square)
    reach = mask.single("kernel attention", q.shape[1], k.shape[1], q.device)
    inside = score > -torch.inf
    weights = weigh(score, inside if reach is None else inside & reach)
    return weights @ v, weights


def gaussian_attend(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B H S d"],
    v: Float[Tensor, "B H S e"],
    bandwidth: float,
    mask: Mask = FULL,
) -> Float[Tensor, "B H T e"]:
    """Gaussian kernel attention by torch's dot-product kernel: no [T, S] of distances is ever held.

    The fine is a feature more, -|k|^2 / 2, that meets a 1 in the query. Where q and k lie many bandwidths from the
    origin, two large numbers cancel: the logits are exact to (|k| / h)^2 roundings. Centre them first.
    """
    fine = -k.square().sum(dim=-1, keepdim=True) / 2
    scale = math.sqrt(q.shape[-1] + 1) / bandwidth**2  # torch divides by the first
    return attend(torch.cat([q, torch.ones_like(q[..., :1])], dim=-1) * scale, torch.cat([k, fine], dim=-1), v, mask)
