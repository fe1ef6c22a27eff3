"""From numbers of any kind to float32 [N, C, H, W] in [-1, 1]: the rules for range, layout, transparency and colour.

* range: bools are 0 and 1; whole numbers 0 ... 255, of uint16 0 ... 65535; floats lie in [-1, 1] where one is
  negative, else in [0, 1];
* layout: [N, H, W], or four dimensions with the channels (1 to 4) last or, where only that fits, second;
* 2 and 4 channels: the last is opacity, and the picture is laid over the background;
* colour to grey: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); grey to colour: three equal channels; "auto": grey where
  every picture is.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from PIL import ImageColor
from torch import Tensor

Channels = Literal["auto", 1, 3]
LUMA = (0.299, 0.587, 0.114)
SLACK = 1e-3  # how far floats may lie outside


def images(x: Shaped[np.ndarray, "..."], channels: Channels, background: str) -> Float32[Tensor, "N C H W"]:
    """An array of pictures as a data set holds them.

    Raises:
        ValueError: for numbers or a layout that no rule covers, and for a background that is no colour.
    """
    plain = _layout(_unit(x))  # [N, C, H, W], in [0, 1]
    if plain.shape[1] in (2, 4):
        plain = _over(plain, background)
    return recolour(plain * 2 - 1, channels)


def recolour(x: Float32[Tensor, "N C H W"], channels: Channels) -> Float32[Tensor, "N D H W"]:
    """One or three channels, as asked."""
    if channels == "auto":
        channels = 1 if x.shape[1] == 1 or bool((x == x[:, :1]).all()) else 3
    if x.shape[1] == channels:
        return x
    if channels == 3:
        return x.expand(-1, 3, -1, -1).contiguous()
    if bool((x == x[:, :1]).all()):
        return x[:, :1].contiguous()  # exact, where the weighted sum rounds
    weights = torch.tensor(LUMA).view(1, 3, 1, 1)
    return (x * weights).sum(1, keepdim=True)


def rgb(colour: str) -> tuple[float, float, float]:
    """A colour by name or as "#rrggbb", as three numbers in [0, 1]. Raises ValueError."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return red / 255, green / 255, blue / 255


def _unit(x: np.ndarray) -> Tensor:
    """In [0, 1], float32."""
    if x.size == 0:
        raise ValueError(f"an array of shape {x.shape} holds no pictures")
    if x.dtype.kind not in "biuf":
        raise ValueError(f"numbers of type {x.dtype}; expected whole numbers, floats or bools")
    low, high = x.min(), x.max()
    if x.dtype == np.bool_ or x.dtype == np.uint16:
        scale = 1.0 if x.dtype == np.bool_ else 65535.0
        return torch.from_numpy(x.astype(np.float32)) / scale
    if np.issubdtype(x.dtype, np.integer):
        if low < 0 or high > 255:
            raise ValueError(f"whole numbers from {low} to {high}; expected 0 to 255, or uint16")
        return torch.from_numpy(x.astype(np.float32)) / 255
    if not np.isfinite(low) or not np.isfinite(high):
        raise ValueError("some numbers are not finite")
    if max(-low, high) > 1 + SLACK:
        raise ValueError(f"floats from {low:g} to {high:g}; expected -1 to 1, or 0 to 1")
    plain = torch.from_numpy(x.astype(np.float32))
    return ((plain + 1) / 2 if low < 0 else plain).clamp(0, 1)


def _layout(x: Tensor) -> Tensor:
    """[N, C, H, W]."""
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4 or not (1 <= x.shape[3] <= 4 or 1 <= x.shape[1] <= 4):
        raise ValueError(f"an array of shape {tuple(x.shape)}; expected [N, H, W], [N, H, W, C] or [N, C, H, W]")
    return x.movedim(3, 1).contiguous() if 1 <= x.shape[3] <= 4 else x


def _over(x: Tensor, background: str) -> Tensor:
    """Opacity times the picture plus the rest of the background: [N, 2 or 4, H, W] -> [N, 1 or 3, H, W]."""
    paper = torch.tensor(rgb(background)).view(1, 3, 1, 1)
    ink, cover = x[:, :-1], x[:, -1:]
    if ink.shape[1] == 1 and bool((paper == paper[:, :1]).all()):
        paper = paper[:, :1]  # grey stays grey
    return cover * ink + (1 - cover) * paper
