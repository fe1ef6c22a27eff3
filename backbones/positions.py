"""Where a token stands: attention sees a set, so position has to be written into what it compares.

    sinusoidal   added to the embedding, fixed      PE[p, 2i] = sin(p w_i), PE[p, 2i+1] = cos(p w_i)
    Learned      added to the embedding, trained    one row for each position up to a limit
    Rotary       turns queries and keys             q_p . k_s then depends on p - s alone

Key: p position, d the width (of the head, for Rotary), w_i = theta^(-2i/d) the i-th frequency, i = 0 ... d/2 - 1.

Positions are an argument everywhere, [B, T] or [1, T], never an implied 0 ... T-1: a padded batch, a cached
continuation and several sequences packed into one row then need nothing special.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


def frequencies(width: int, theta: float, device: torch.device) -> Float[Tensor, "half"]:
    """w_i = theta^(-2i/d) in float64. Raises ValueError for an odd width."""
    if width % 2:
        raise ValueError(f"positions turn pairs of features: the width is {width}, and must be even")
    return theta ** -(torch.arange(0, width, 2, device=device, dtype=torch.float64) / width)


def sinusoidal(positions: Int64[Tensor, "B T"], width: int, theta: float = 10_000.0) -> Float[Tensor, "B T D"]:
    """The fixed encoding, sine and cosine interleaved (Vaswani et al. 2017, sec. 3.5). float32, in [-1, 1]."""
    angle = positions[..., None] * frequencies(width, theta, positions.device)  # [B, T, D/2], radians
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2).float()


class Learned(nn.Module):
    """One trained vector for each position (Gehring et al. 2017, sec. 3.1; GPT-2).

    Args:
        length: how many positions there are; a later one raises IndexError.
        width: D.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(length, width)

    def forward(self, positions: Int64[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        return self.table(positions)


class Rotary:
    """Rotary position embedding: the feature pair (i, i + d/2) is turned by the angle p w_i.

    Source: Su et al. 2021, "RoFormer", eq. 15. The pairing is Llama's (first half with second half), which permutes
    the paper's (2i, 2i+1). It holds no weights and no buffers: angles are made in float64 for the positions asked.

    Args:
        width: d, the width of one head; even.
        theta: the base of the frequencies. Larger turns more slowly and reaches further.
    """

    def __init__(self, width: int, theta: float = 10_000.0) -> None:
        frequencies(width, theta, torch.device("cpu"))  # refuse an odd width now
        self.width, self.theta = width, theta

    def angles(self, positions: Int64[Tensor, "B T"]) -> Float[Tensor, "B T half"]:
        """p w_i in radians, float64; shared by all layers and heads of one forward pass."""
        return positions[..., None] * frequencies(self.width, self.theta, positions.device)


def rotate(
    x: Float[Tensor, "B H T d"], cos: Float[Tensor, "b 1 T half"], sin: Float[Tensor, "b 1 T half"]
) -> Float[Tensor, "B H T d"]:
    """Turn each pair (x_i, x_{i+d/2}) by its angle; b is B or 1."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
