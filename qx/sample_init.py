"""What `qx sample` begins with: a picture as a sample of the model, and a mask of what is painted anew.

Pictures are read by the rules that data are read by (`data.decode`): what trains a model and what it begins with are
looked at in the same way, and each finding is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.nn import functional

from generative.diffusion.data import pixels
from generative.diffusion.data.decode import RefusedError, square, whole
from generative.diffusion.data.report import FINDINGS
from generative.diffusion.parts import Parts
from lab import console
from qx.usage import UsageError

REPAINTED, ANEW = 0.6, 1.0  # strength by default: of a whole picture, and of what is white in a mask


@dataclass(frozen=True, eq=False)
class Beginning:
    """As a request has it; see `Request`."""

    init: Float[Tensor, "c h w"] | None = None
    mask: Float[Tensor, "1 h w"] | None = None
    strength: float = 1.0


def beginning(model: Parts, init: Path | None, mask: Path | None, strength: float | None) -> Beginning:
    """What images begin with.

    Args:
        model: what draws them.
        init: a picture; None to begin with noise.
        mask: a picture of what to paint anew (white) and what to keep (black); None to paint everything.
        strength: how much is painted anew; None for 0.6, and with a mask 1.

    Raises:
        UsageError: for a file that cannot be read, does not fit or says nothing, and for what needs an `init`.
    """
    if init is None:
        for flag, given in (("--mask", mask), ("--strength", strength)):
            if given is not None:
                raise UsageError(f"{flag} {given}: needs --init, a picture to begin from")
        return Beginning()
    channels, height, width = model.image
    picture = _picture("--init", init, (height, width), grey=channels == 1, background="white")
    device = next(model.network.parameters()).device
    sample = model.encode(picture.image.to(device))[0]
    if mask is None:
        return Beginning(sample, None, REPAINTED if strength is None else strength)
    return Beginning(sample, _mask(mask, model, picture), ANEW if strength is None else strength)


class _Picture(NamedTuple):
    image: Float32[Tensor, "1 C H W"]  # in [-1, 1]
    was: tuple[int, int]  # width and height of the file's picture, upright


def _mask(path: Path, model: Parts, init: _Picture) -> Float[Tensor, "1 h w"]:
    """1 where to paint, 0 where to keep.

    As in diffusers' inpainting pipelines a grey level of a half and more is white, and for latents the nearest pixel
    counts. What is transparent is black, for a mask is often strokes on nothing.
    """
    _, height, width = model.image
    read = _picture("--mask", path, (height, width), grey=True, background="black")
    (across, down), (wide, high) = read.was, init.was
    if abs(across * high - down * wide) >= max(wide, high):  # a side of a smaller copy may be rounded up or down
        raise UsageError(
            f"--mask {path}: {across} x {down} pixels; expected the proportions of --init, {wide} x {high}"
        )
    white: Bool[Tensor, "1 1 H W"] = read.image >= 0
    if not white.any():
        raise UsageError(f"--mask {path}: nothing in it is white; expected white where to paint anew")
    painted = functional.interpolate(white.float(), model.shape[1:])[0]  # [1, h, w], the nearest
    if not painted.any():
        h, w = model.shape[1:]
        raise UsageError(f"--mask {path}: what is white is too small to be seen among the {w} x {h} of a latent")
    return painted


def _picture(flag: str, path: Path, size: tuple[int, int], *, grey: bool, background: str) -> _Picture:
    """A file's picture at (height, width); other than squares are not cut or resized. Raises UsageError."""
    if not path.is_file():
        raise UsageError(f"{flag} {path}: no such file")
    found: list[str] = []
    height, width = size
    try:
        read = whole(path, background, found)
        fitted = square(read, height, found) if height == width else read
    except RefusedError as refusal:
        rule = FINDINGS[str(refusal)].partition(": left out")[0]
        raise UsageError(f"{flag} {path}: {refusal}: {rule}") from None
    if fitted.size != (width, height):
        raise UsageError(f"{flag} {path}: {read.width} x {read.height} pixels; expected {width} x {height}")
    for finding in found:
        if not (grey and finding == "grey"):  # which is no finding where all is grey
            _say(f"{flag} {path}: {FINDINGS[finding]}")
    if grey and "grey" not in found and flag == "--init":
        _say(f"{flag} {path}: colours are made grey, as the model draws")
    page = np.asarray(fitted)[None]  # uint8 [1, H, W, 3]
    return _Picture(pixels.images(page, 1 if grey else 3, background), read.size)


def _say(what: str) -> None:
    console.err.print(f"[dim]{console.escape(what)}[/]", soft_wrap=True)
