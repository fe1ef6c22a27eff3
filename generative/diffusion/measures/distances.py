"""How far samples are from data: distances between two clouds of features, rows of numbers as a judge sees images.

* `frechet`: between Gaussians with the moments of the clouds, |m - m'|^2 + Tr(S + S' - 2 (S S')^(1/2)). Heusel et al.
  2017, "GANs trained by a two time-scale update rule", eq. 6 (there on Inception's features: FID).
* `kernel`: the squared maximum mean discrepancy, unbiased, with the kernel k(x, y) = (x.y / D + 1)^3. Binkowski et al.
  2018, "Demystifying MMD GANs", sec. 4 (KID); Gretton et al. 2012, eq. 3.
* `cover`: precision, the share of samples that lie among the data, and recall, the share of the data that lies among
  samples. Kynkaanniemi et al. 2019, "Improved precision and recall metric", eq. 1 and 2.

The first is biased: finite clouds of one distribution are apart, the more so the fewer. Compare it at equal counts, and
with the distance of real images held out from those learned from: nothing can be expected to fall below that.

Key: N, M rows of the two clouds, D features. Everything is computed in float64, on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

BLOCK = 1024  # rows of a kernel matrix held at a time


@dataclass(frozen=True)
class Estimate:
    """A number and the standard error of it."""

    value: float
    error: float


@dataclass(frozen=True)
class Cover:
    """Precision and recall, each in [0, 1]."""

    precision: float
    recall: float


def frechet(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> float:
    """The squared Frechet distance of the Gaussians with their moments (covariances over N - 1 and M - 1).

    Raises:
        ValueError: for fewer than two rows, or numbers that are not finite.
    """
    x, y = _checked(x, y)
    return frechet_gaussians(
        x.mean(0), torch.cov(x.T).view(x.shape[1], -1), y.mean(0), torch.cov(y.T).view(len(y.T), -1)
    )


def frechet_gaussians(
    mean: Float64[Tensor, "D"],
    covariance: Float64[Tensor, "D D"],
    other_mean: Float64[Tensor, "D"],
    other_covariance: Float64[Tensor, "D D"],
) -> float:
    """The same of two Gaussians by their moments (Dowson & Landau 1982, eq. 4).

    S S' is not symmetric, but has the eigenvalues of S^(1/2) S' S^(1/2), which is; so the trace of its root needs no
    root of a general matrix, and covariances of any rank will do. Rounding below zero is cut off.
    """
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = root @ other_covariance @ root
    overlap = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    squared = (mean - other_mean).square().sum() + covariance.trace() + other_covariance.trace() - 2 * overlap
    return max(squared.item(), 0.0)


def kernel(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> Estimate:
    """The unbiased squared discrepancy of all rows (below zero by chance, where the clouds are alike).

    The standard error is the jackknife's for two samples, each row left out once (Arvesen 1969, sec. 3): exact sums, no
    draws. It departs from Binkowski et al., who average over random subsets of 1000; where the clouds are alike, it is
    too large by about the root of two rather than too small.

    Raises:
        ValueError: for fewer than three rows, or numbers that are not finite.
    """
    x, y = _checked(x, y, least=3)
    n, m = len(x), len(y)
    inner_x, inner_y = (_sums(z, z)[0] - _kernel_diagonal(z) for z in (x, y))  # [N], [M]: of each row with the others
    cross_x, cross_y = _sums(x, y)  # [N], [M]
    within_x, within_y = inner_x.sum() / (n * (n - 1)), inner_y.sum() / (m * (m - 1))
    across = cross_x.sum() / (n * m)
    value = within_x + within_y - 2 * across
    without_x = (inner_x.sum() - 2 * inner_x) / ((n - 1) * (n - 2)) + within_y
    without_x = without_x - 2 * (cross_x.sum() - cross_x) / ((n - 1) * m)  # [N]: the value without each row
    without_y = (inner_y.sum() - 2 * inner_y) / ((m - 1) * (m - 2)) + within_x
    without_y = without_y - 2 * (cross_y.sum() - cross_y) / (n * (m - 1))
    variance = sum(((k - 1) / k * (w - w.mean()).square().sum()).item() for k, w in ((n, without_x), (m, without_y)))
    return Estimate(value.item(), variance**0.5)


def cover(data: Float[Tensor, "N D"], samples: Float[Tensor, "M D"], neighbour: int = 3) -> Cover:
    """Precision and recall: a point lies among a cloud where it is in the ball of one of its rows.

    Args:
        data: features of real images.
        samples: features of generated ones.
        neighbour: a row's ball reaches to this nearest other row of its cloud. Larger is more lenient.

    Raises:
        ValueError: for clouds of no more rows than `neighbour`, or numbers that are not finite.
    """
    data, samples = _checked(data, samples, least=neighbour + 1)
    return Cover(_among(samples, data, neighbour), _among(data, samples, neighbour))


def _among(points: Tensor, cloud: Tensor, neighbour: int) -> float:
    """The share of the points that lie in the ball of a row of the cloud."""
    reach = torch.cat(
        [torch.cdist(part, cloud).kthvalue(neighbour + 1, dim=1).values for part in torch.split(cloud, BLOCK)]
    )
    inside = [(torch.cdist(part, cloud) <= reach).any(1) for part in torch.split(points, BLOCK)]
    return torch.cat(inside).double().mean().item()


def _sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the rows [N] and the columns [M] of the kernel matrix, which is never held as a whole."""
    rows, columns = [], torch.zeros(len(y), dtype=torch.float64)
    for part in torch.split(x, BLOCK):
        block = (part @ y.T / x.shape[1] + 1) ** 3
        rows.append(block.sum(1))
        columns += block.sum(0)
    return torch.cat(rows), columns


def _kernel_diagonal(x: Tensor) -> Tensor:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def _checked(x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Both in float64 on the CPU, once they can be compared."""
    if x.shape[1] != y.shape[1] or min(len(x), len(y)) < least:
        shapes = f"{tuple(x.shape)} and {tuple(y.shape)}"
        raise ValueError(f"clouds of shapes {shapes}; expected [N, D] and [M, D] with N and M at least {least}")
    x, y = (z.detach().cpu().double() for z in (x, y))
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("some features are not finite")
    return x, y
