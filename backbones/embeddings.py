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


def timestep_waves(
    t: Float[Tensor, "B"], width: int, period: float = 10_000.0, *, offset: int = 0, sine_first: bool = False
) -> Float[Tensor, "B D"]:
    """[cos(t w_i), sin(t w_i)] with w_i = period^(-i / (D/2 - offset)), i < D/2.

    Computed in float32 whatever the type of `t`, as diffusers' `Timesteps` does.

    Args:
        t: timesteps.
        width: D; even.
        period: the slowest wave is the base of the fastest divided by it.
        offset: 0 in Vaswani et al. 2017 and Dhariwal & Nichol 2021; 1 in the code of Ho et al. 2020, where the slowest
            wave has the frequency 1/period exactly (diffusers: `downscale_freq_shift`).
        sine_first: sines in the first half (diffusers: not `flip_sin_to_cos`).
    """
    half = width // 2
    places = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t[:, None].float() * torch.exp(-math.log(period) * places / (half - offset))  # [B, D/2], radians
    return torch.cat([angle.sin(), angle.cos()] if sine_first else [angle.cos(), angle.sin()], dim=1)


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
