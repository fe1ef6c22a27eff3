"""One image file to pixels: opened, bounded, decoded once, set upright, made RGB, cropped and resized."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageColor, ImageOps

PIXELS = 64_000_000  # in a file; beyond, decoding would take gigabytes
TINY = 4  # times that a picture may be enlarged
ORIENTATION = 0x0112  # the EXIF tag
GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I")
PLAIN = (*GREY, "RGB", "RGBA", "RGBa", "RGBX", "P", "PA")  # modes that are no other colour space


class RefusedError(Exception):
    """An image is left out; the message is the finding."""


def decode(
    path: Path, size: int, background: str, note: Callable[[str], None]
) -> UInt8[np.ndarray, "size size 3"] | None:
    """The picture, or None where it is left out; `note` hears each finding (the keys of `report.FINDINGS`).

    Whatever the file holds, this returns: the decoders of image formats raise errors of many kinds on damaged input.

    Args:
        path: the file.
        size: side of the square, in pixels.
        background: a colour that shows through where the picture is transparent.
        note: called once for each finding.
    """
    found: list[str] = []
    try:
        picture = square(whole(path, background, found), size, found)
    except RefusedError as refusal:
        note(str(refusal))
        return None
    for finding in found:
        note(finding)
    return np.asarray(picture)


def whole(path: Path, background: str, found: list[str]) -> Image.Image:
    """The picture as wide and high as it is: upright, opaque, RGB of 8 bits a channel.

    Args:
        path: the file.
        background: a colour that shows through where the picture is transparent.
        found: each finding is added to it.

    Raises:
        RefusedError: for a file that is left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow warns of is reported here
        return _rgb(_open(path, found), background, found)


def square(image: Image.Image, size: int, found: list[str]) -> Image.Image:
    """The middle square, of `size` pixels a side; untouched where it has them already.

    Args:
        image: the picture.
        size: side of the square, in pixels.
        found: each finding is added to it.

    Raises:
        RefusedError: where it would have to be enlarged too much.
    """
    side = min(image.size)
    if side * TINY < size:
        raise RefusedError("tiny")
    if image.width != image.height:
        found.append("cropped")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if side == size:
        return image
    found.append("reduced" if side > size else "enlarged")
    way = Image.Resampling.LANCZOS if side > size else Image.Resampling.BICUBIC
    return image.resize((size, size), way)


def _open(path: Path, found: list[str]) -> Image.Image:
    """Decoded and upright."""
    try:
        opened = Image.open(path)
    except Image.DecompressionBombError:
        raise RefusedError("huge") from None
    except Exception:
        raise RefusedError("unreadable") from None
    with opened:
        if opened.width * opened.height > PIXELS:
            raise RefusedError("huge")
        try:
            animated, turn = getattr(opened, "is_animated", False), opened.getexif().get(ORIENTATION, 1)
            opened.load()
            upright = ImageOps.exif_transpose(opened)
        except Exception:
            raise RefusedError("damaged") from None
    found += ["animated"] * bool(animated) + ["turned"] * (turn in range(2, 9))
    return upright


def _rgb(image: Image.Image, background: str, found: list[str]) -> Image.Image:
    """8 bits a channel, opaque, RGB."""
    try:
        if image.mode in GREY:
            found.append("grey")
        if image.mode in ("P", "PA"):
            found.append("palette")
        if image.mode not in PLAIN and image.mode != "F":
            found.append("colour space")
        if image.mode.startswith("I") or image.mode == "F":
            return _deep(image, found)
        if image.has_transparency_data:
            clear = image.convert("RGBA")
            if clear.getextrema()[3][0] < 255:
                found.append("transparent")
            paper = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
            image = Image.alpha_composite(paper, clear)
        return image.convert("RGB")
    except RefusedError:
        raise
    except Exception:
        raise RefusedError("damaged") from None


def _deep(image: Image.Image, found: list[str]) -> Image.Image:
    """16 bits of grey to 8: 65535 -> 255. Pillow opens some 16-bit files as 32-bit integers."""
    level = np.asarray(image)
    if image.mode == "F" or level.min() < 0 or level.max() > 65535:
        raise RefusedError("unknown range")
    found.append("deep")
    return Image.fromarray((level / 257).round().astype(np.uint8)).convert("RGB")
