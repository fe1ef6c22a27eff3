"""What a network is told besides its input: the noise level as waves, the class as a learned vector.

Timesteps: half the channels are cosines, half sines, of geometrically falling frequency (Vaswani et al. 2017,
sec. 3.5; for noise levels Ho et al. 2020, appendix B). Classes: one vector each, and one more, the *null* class,
that stands for "not told" and makes classifier-free guidance possible (Ho & Salimans 2022, alg. 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.masks import Mask
from backbones.shape import wrong


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


def entrance(
    what: str,
    x: Tensor,
    t: Tensor,
    label: Tensor | None,
    context: Tensor | None,
    mask: Mask,
    *,
    told: Sequence[int] | None,
    features: int | None,
) -> None:
    """Refuse what a denoiser is told where it would broadcast over the batch, or be passed over in silence.

    Args:
        what: the network, as its errors name it.
        x: noisy pictures, [B, ...].
        t: timesteps.
        label: what the network is told of each picture, if anything.
        context: what it attends to, if anything.
        mask: of the context.
        told: the shape of one label; None where the network was made for none.
        features: of one token of the context; None where the network was made for none.

    Raises:
        ShapeError: for timesteps, labels or a context that are not one for each picture.
        ValueError: for a label, a context or a mask that nobody reads, or a context that is missing.
    """
    batch = len(x)
    if t.shape != (batch,):
        raise wrong(f"{what}: t", t, f"[{batch}]")
    if label is not None and told is None:
        raise ValueError(f"{what}: a label of shape {list(label.shape)}, made with classes=None: expected none")
    if label is not None and told is not None and label.shape != (batch, *told):
        raise wrong(f"{what}: label", label, f"[{', '.join(map(str, (batch, *told)))}]")
    if (context is None) != (features is None):
        given = None if context is None else list(context.shape)
        raise ValueError(f"{what}: a context of shape {given}, made for context={features}: expected both or neither")
    if context is None and (mask.causal or mask.allowed is not None):
        raise ValueError(f"{what}: a mask without a context: expected none")
    if context is not None and (context.ndim != 3 or len(context) != batch or context.shape[2] != features):
        raise wrong(f"{what}: context", context, f"[{batch}, S, {features}]")
