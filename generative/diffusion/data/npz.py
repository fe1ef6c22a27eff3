"""Images from a numpy archive. What it may hold, the first that fits:

* `x_train, y_train, x_test, y_test`: the keys of mnist.npz; the parts are the file's own, labels may be absent;
* `images`, `rgba` or `x`, with `labels` or `y`, or `captions`: one part, of which a share is held out. `qx sample`
  writes `images` and `labels`, with -1 for none.

`generative.diffusion.data.pixels` has the rules for the numbers. Nothing is ever unpickled.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from generative.diffusion.data import pixels
from generative.diffusion.data.report import Report
from generative.diffusion.data.split import DataError, Images, Split, divide, number

IMAGES, LABELS = ("images", "rgba", "x"), ("labels", "y")
EXPECTED = "expected x_train, y_train, x_test, y_test; or images, rgba or x, with labels, y or captions"


def npz(
    path: Path,
    *,
    channels: pixels.Channels = "auto",
    background: str = "white",
    test: float = 0.1,
    seed: int = 0,
) -> Split:
    """The images of an archive, at their own size.

    Args:
        path: the file.
        channels: 1 makes all grey, 3 all RGB; "auto" is 1 where every image is grey.
        background: what shows through where images are transparent.
        test: the share that is held out, where the file does not say.
        seed: of the choice which.

    Raises:
        DataError: for a file that is none, or holds something else.
    """
    held = _open(path)
    try:
        if "x_train" in held:
            return _divided(held, channels, background)
        name = next((key for key in IMAGES if key in held), None)
        if name is None:
            raise ValueError(f"it holds {', '.join(sorted(held)) or 'nothing'}")
        image = pixels.images(held[name], channels, background)
        names, label = _labels(next((held[key] for key in LABELS if key in held), None))
        words = _words(held["captions"]) if "captions" in held else None
        for what, found in (("labels", label), ("captions", words)):
            if found is not None and len(found) != len(image):
                raise ValueError(f"{len(found)} {what} for {len(image)} images")
        train, kept = divide(Images(image, label, words), test, seed)
        return Split(train, kept, names, Report(len(image)))
    except ValueError as error:
        raise DataError(f"{path}: {error}; {EXPECTED}") from None


def _open(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a numpy archive (.npz)")
    wanted = {"x_train", "y_train", "x_test", "y_test", "captions", *IMAGES, *LABELS}
    if not zipfile.is_zipfile(path) and path.read_bytes()[:6] != b"\x93NUMPY":
        raise DataError(f"{path}: not a numpy archive; {EXPECTED}")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("one bare array, as in .npy")
        with loaded as held:
            return {name: held[name] if name in wanted else np.empty(0) for name in held.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f"{path}: not a numpy archive ({error}); {EXPECTED}") from None


def _divided(held: dict[str, np.ndarray], channels: pixels.Channels, background: str) -> Split:
    """Both parts in one go, so that they share what "auto" finds and the names of the classes."""
    if "x_test" not in held:
        raise ValueError("it holds x_train without x_test")
    parts = [held["x_train"], held["x_test"]]
    if parts[0].shape[1:] != parts[1].shape[1:] or parts[0].dtype != parts[1].dtype:
        shapes = [f"{part.shape} of {part.dtype}" for part in parts]
        raise ValueError(f"x_train is {shapes[0]}, x_test {shapes[1]}")
    image = pixels.images(np.concatenate(parts), channels, background)
    both = [held[key] for key in ("y_train", "y_test") if key in held]
    if len(both) == 1:
        raise ValueError("it holds only one of y_train and y_test")
    for key, y, part in zip(("y_train", "y_test"), both, parts, strict=False):
        if y.ndim != 1 or len(y) != len(part):
            raise ValueError(f"{key} has shape {y.shape} for {len(part)} images")
    names, label = _labels(np.concatenate(both) if both else None)
    everything, border = Images(image, label), len(parts[0])
    train, test = torch.arange(border), torch.arange(border, len(image))
    return Split(everything.take(train), everything.take(test), names, Report(len(image)))


def _labels(y: np.ndarray | None) -> tuple[tuple[str, ...], torch.Tensor | None]:
    if y is None or (np.issubdtype(y.dtype, np.integer) and len(y) and bool((y == -1).all())):
        return (), None
    if y.ndim != 1 or len(y) == 0:
        raise ValueError(f"labels of shape {y.shape}; expected one for each image")
    values: Sequence[int] | Sequence[str]
    if np.issubdtype(y.dtype, np.integer):
        values = [int(label) for label in y.tolist()]
    else:
        values = _words(y)
    return number(values)


def _words(y: np.ndarray) -> tuple[str, ...]:
    if y.ndim != 1 or y.dtype.kind not in "US":
        raise ValueError(f"captions or labels of type {y.dtype} and shape {y.shape}; expected one text for each image")
    return tuple(word.decode() if isinstance(word, bytes) else word for word in y.tolist())
