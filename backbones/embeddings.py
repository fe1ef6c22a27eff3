"""What a network is told besides its input: the noise level as waves, the class as a learned vector.

Timesteps: half the channels are cosines, half sines, of geometrically falling frequency (Vaswani et al. 2017,
sec. 3.5; for noise levels Ho et al. 2020, appendix B). Classes: one vector each, and one more, the *null* class,
that stands for "not told" and makes classifier-free guidance possible (Ho & Salimans 2022, alg. 1).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional


def timestep_waves(t: Float[Tensor, "B"], width: int, period: float = 10_000.0) -> Float[Tensor, "B D"]:
    """[cos(t w_i), sin(t w_i)] with w_i = period^(-i / (width/2)), i < width/2; D = width.

    Order and frequencies are those of diffusers' `Timesteps(width, flip_sin_to_cos=True, downscale_freq_shift=0)`;
    computed in float32 whatever the type of `t`.
    """
    half = width // 2
    frequency = torch.exp(-math.log(period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t[:, None].float() * frequency  # [B, D/2], radians
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class TimestepMLP(nn.Module):
    """Two linear layers that turn waves into what the blocks read (Ho et al. 2020, appendix B)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, waves: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        return self.linear_2(functional.silu(self.linear_1(waves)))


class ClassEmbedding(nn.Embedding):
    """One vector for each of `classes` labels, and one for the null label, whose index is `classes`."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__(classes + 1, width)
        self.null = classes

    def forward(self, label: Int64[Tensor, "B"]) -> Float[Tensor, "B E"]:
        return super().forward(label)
