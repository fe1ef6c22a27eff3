"""Samples to look at: a grid as one picture, a denoising as a film."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor


def grid(
    images: Float[Tensor, "N C H W"], columns: int, *, zoom: int = 4, gap: int = 2, background: int = 128
) -> UInt8[np.ndarray, "height width *rgb"]:
    """Images in [-1, 1], row by row, each pixel `zoom` pixels wide and `gap` pixels apart; C is 1 (grey) or 3.

    Raises:
        ValueError: for another number of channels.
    """
    if images.shape[1] not in (1, 3):
        raise ValueError(f"images have {images.shape[1]} channels; a picture has 1 or 3")
    level = ((images.detach().cpu().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    level = level.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)  # [N, C, zoom H, zoom W]
    n, c, h, w = level.shape
    rows = -(-n // columns)
    page = torch.full((c, gap + rows * (h + gap), gap + columns * (w + gap)), background, dtype=torch.uint8)
    for i, image in enumerate(level):
        top, left = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        page[:, top : top + h, left : left + w] = image
    return page[0].numpy() if c == 1 else page.permute(1, 2, 0).numpy()


def save_png(picture: UInt8[np.ndarray, "height width *rgb"], path: Path) -> None:
    """Write a picture, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, format="PNG")


def save_gif(
    frames: Sequence[UInt8[np.ndarray, "height width *rgb"]], path: Path, *, milliseconds: int = 80, hold: int = 1500
) -> None:
    """Write pictures of one size as a film that loops and holds its last frame; both times in milliseconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = [Image.fromarray(frame) for frame in frames]
    durations = [milliseconds] * len(rest) + [hold]
    first.save(path, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
