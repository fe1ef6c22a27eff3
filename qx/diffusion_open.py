"""Models that draw, by the name of a run of `qx diffuse` or of a folder."""

from __future__ import annotations

from pathlib import Path

from generative.diffusion.pipeline import Pipeline
from generative.diffusion.stock.stock import INDEX, Stock
from qx.jobs import finished


def model_folder(path: Path) -> Path:
    """What a model is read from: the folder itself, or what a run has made. Raises UsageError before a run's end."""
    if (path / INDEX).is_file():
        return path
    made = (path / "model", path / "diffusers")  # the second where a model of diffusers was tuned
    return next((folder for folder in made if folder.is_dir()), None) or finished(path)


def opened(folder: Path) -> Pipeline | Stock:
    """A model of ours, or of diffusers, to draw with. Raises ModelError where there is none."""
    if not (folder / INDEX).is_file():
        pipeline = Pipeline.load(folder)
        pipeline.network.eval()
        return pipeline
    from generative.diffusion.stock.folder import open_folder  # seconds to load

    return open_folder(folder)
