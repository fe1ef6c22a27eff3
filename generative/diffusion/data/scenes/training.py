"""Scenes as a data set: to learn from, and, held out, captions that are never trained on."""

from __future__ import annotations

from generative.diffusion.data.scenes.checking import obeyed
from generative.diffusion.data.scenes.sampling import Side, images_of, scene, scenes
from generative.diffusion.data.split import Split


def scene_split(seed: int = 0, train: int = 10_000, test: int = 1_000) -> Split:
    """Scenes to learn from, and scenes of captions never trained on: in turn of the sides "pair" and "thing"."""
    sides: tuple[Side, Side] = ("pair", "thing")
    unseen = [scene(seed, index // 2, sides[index % 2]) for index in range(test)]
    return Split(scenes(seed, train), images_of(unseen), check=obeyed)
