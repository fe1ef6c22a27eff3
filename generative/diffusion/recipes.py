"""How the embedded data sets are learned: what `qx diffuse` does by default, and what the claims about them run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from generative.diffusion.model import DiffusionConfig
from generative.diffusion.training.course import PartsConfig
from generative.train import TrainConfig


class Drawing(NamedTuple):
    """How samples are drawn for a report: the solver's name, its steps, and the guidance."""

    solver: str
    steps: int
    guidance: float


BY_CLASS, BY_PROMPT = Drawing("dpmpp-2m", 20, 1.5), Drawing("dpmpp-2m", 20, 3.0)
"""Where no recipe says it."""


@dataclass(frozen=True)
class Recipe:
    """A network, what stands around it, how long it learns, and how it is drawn from."""

    model: DiffusionConfig
    parts: PartsConfig
    train: TrainConfig
    drawing: Drawing


DIGITS = Recipe(
    DiffusionConfig(),
    PartsConfig(),
    TrainConfig(steps=1000, batch_size=128, learning_rate=2e-3, ema=0.05),
    BY_CLASS,
)
"""Handwritten digits, and whatever else: two minutes on two cores at 8 x 8 pixels."""

SCENES = Recipe(
    DiffusionConfig(backbone="dit", width=192, blocks=6, patch=1),
    PartsConfig(prompts=True, latent=True, halvings=2, latent_channels=8, kl=1e-3, autoencoder_steps=600),
    TrainConfig(steps=7000, batch_size=64, learning_rate=2e-3, ema=0.05),
    Drawing("ddpm", 100, 2.0),
)
"""Captioned scenes. A latent of 4 x 4 is a word of the DiT each, so that a batch is a thousand words; in pixels it is
four times as many, and cells are not where patches are. Fresh noise at every step lets later steps mend what earlier
ones decided (docs/notebook.md)."""

RECIPES = {"digits": DIGITS, "scenes": SCENES}
