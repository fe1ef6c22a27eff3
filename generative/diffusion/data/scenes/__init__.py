"""Captioned scenes on a grid of three by three cells: an endless data set in which a picture can be checked exactly.

images = scenes(seed=0, n=10_000)                 # images.captions[0]: "a red agent left of a green goal"
obeys(images.image[0], images.captions[0])        # True
"""

from generative.diffusion.data.scenes.checking import obeyed, obeys, read
from generative.diffusion.data.scenes.drawing import paint
from generative.diffusion.data.scenes.grammar import (
    COLOURS,
    SHAPES,
    CaptionError,
    Meaning,
    Related,
    Some,
    Thing,
    caption,
    meanings,
    parse,
)
from generative.diffusion.data.scenes.sampling import HELD_OUT, SIDES, of_side, scenes, side_of
from generative.diffusion.data.scenes.training import scene_split

__all__ = [
    "COLOURS",
    "HELD_OUT",
    "SHAPES",
    "SIDES",
    "CaptionError",
    "Meaning",
    "Related",
    "Some",
    "Thing",
    "caption",
    "meanings",
    "obeyed",
    "obeys",
    "of_side",
    "paint",
    "parse",
    "read",
    "scene_split",
    "scenes",
    "side_of",
]
