"""Images from a folder, as Hugging Face's `imagefolder` has it.

    folder/metadata.jsonl    {"file_name": "0001.png", "text": "a red house"}     captions; "label" names a class
    folder/cat/0001.png      folder/dog/0001.png                                 or the subfolder names the class
    folder/0001.png                                                              or nothing does
    folder/train/...         folder/test/...                                     any of these, in two parts

Without a `test`, `validation` or `val` folder a share is held out. Every image is decoded once; nothing in a file stops
the others: what was found is counted in the `Report`, with the rule for each finding beside it (`report.FINDINGS`).

Source: https://huggingface.co/docs/datasets/image_dataset. It departs from it: images that `metadata.jsonl` does not
name are left out, not an error; `metadata.csv` is not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from generative.diffusion.data import pixels
from generative.diffusion.data.decode import decode
from generative.diffusion.data.metadata import METADATA, Entry, agree, entries
from generative.diffusion.data.report import Report
from generative.diffusion.data.split import DataError, Images, Split, divide, number

TESTS = ("test", "validation", "val")


def folder(
    path: Path,
    *,
    size: int = 32,
    channels: pixels.Channels = "auto",
    background: str = "white",
    test: float = 0.1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Split:
    """The images of a folder, with captions or classes where it has them.

    Args:
        path: the folder.
        size: side of the square that each image becomes, in pixels: its middle, reduced with Lanczos' filter or
            enlarged by bicubic interpolation, both antialiased; untouched where it has that side.
        channels: 1 makes all grey, 3 all RGB; "auto" is 1 where every image is grey.
        background: the colour that shows through where images are transparent.
        test: the share that is held out, where there is no folder for it.
        seed: of the choice which.
        progress: hears after every file how many are done.

    Raises:
        DataError: where no image can be used; it says what was found.
        ValueError: for a size below 1 or a background that is no colour.
    """
    if size < 1:
        raise ValueError(f"size is {size}; expected at least 1 pixel")
    pixels.rgb(background)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; expected images, perhaps with {METADATA}")
    report = Report()
    roots = _parts(path)
    listed = agree([entry for root in roots for entry in entries(root, report)], report)
    read: list[np.ndarray] = []
    kept: list[Entry] = []
    for done, entry in enumerate(listed, 1):
        picture = decode(entry.file, size, background, partial(report.add, name=entry.name))
        if picture is not None:
            read.append(picture)
            kept.append(entry)
        if progress is not None:
            progress(done)
    report.kept = len(kept)
    if not any(entry.file.is_relative_to(roots[0]) for entry in kept):
        raise DataError(f"{path}: no image to learn from: {'; '.join(report.lines())}")
    _identical(read, kept, report)
    captions = tuple(entry.text for entry in kept if entry.text is not None)
    try:
        names, label = _labels(kept)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    images = Images(pixels.images(np.stack(read), channels, background), label, captions or None)
    if len(roots) == 1:
        return Split(*divide(images, test, seed), names, report)
    learned = torch.tensor([entry.file.is_relative_to(roots[0]) for entry in kept])
    return Split(images.take(learned.nonzero()[:, 0]), images.take((~learned).nonzero()[:, 0]), names, report)


def _parts(path: Path) -> list[Path]:
    """The folder that is learned from, and where there is one the folder that is held out."""
    if not (path / "train").is_dir():
        return [path]
    return [path / "train", *[path / name for name in TESTS if (path / name).is_dir()][:1]]


def _labels(kept: Sequence[Entry]) -> tuple[tuple[str, ...], Int64[Tensor, "N"] | None]:
    """Names of the classes and the label of each; whole numbers only where all are."""
    given = [entry.label for entry in kept if entry.label is not None]
    if not given:
        return (), None
    whole = [label for label in given if isinstance(label, int)]
    return number(whole if len(whole) == len(given) else [str(label) for label in given])


def _identical(read: Sequence[UInt8[np.ndarray, "size size 3"]], kept: Sequence[Entry], report: Report) -> None:
    """Report pictures that are the same as an earlier one."""
    seen = set()
    for picture, entry in zip(read, kept, strict=True):
        digest = hashlib.blake2b(picture.tobytes(), digest_size=16).digest()
        if digest in seen:
            report.add("identical", entry.name)
        seen.add(digest)
