"""Any data set by its name or its place: embedded, a numpy archive, or a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generative.diffusion.data.folder import folder
from generative.diffusion.data.handwritten import digits
from generative.diffusion.data.npz import npz
from generative.diffusion.data.pixels import Channels
from generative.diffusion.data.scenes import scene_split
from generative.diffusion.data.split import DataError, Split

EMBEDDED: dict[str, Callable[[int], Split]] = {"digits": digits, "scenes": scene_split}


def load(
    source: str,
    *,
    size: int = 32,
    channels: Channels = "auto",
    background: str = "white",
    test: float = 0.1,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Split:
    """A data set.

    Args:
        source: a name of `EMBEDDED`, a file (.npz) or a folder of images.
        size: side of the square that an image of a folder becomes; the others have their own.
        channels: 1 makes all grey, 3 all RGB; "auto" is 1 where every image is grey. The embedded have their own.
        background: the colour that shows through where images are transparent.
        test: the share that is held out where the source does not say.
        seed: of what is drawn: the scenes, and what is held out.
        progress: hears after every file of a folder how many are done.

    Raises:
        DataError: for a source that there is not, or that holds no images.
        ValueError: for a size, share or colour that is none.
    """
    if source in EMBEDDED:
        return EMBEDDED[source](seed)
    path = Path(source)
    if path.is_dir():
        return folder(
            path, size=size, channels=channels, background=background, test=test, seed=seed, progress=progress
        )
    if path.is_file():
        return npz(path, channels=channels, background=background, test=test, seed=seed)
    raise DataError(f"{source}: no such data; expected {', '.join(EMBEDDED)}, an .npz file or a folder of images")
