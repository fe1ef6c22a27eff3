"""What the claims about captions share: a recipe learns, and says how far it is."""

from __future__ import annotations

import time

import torch
from accelerate import Accelerator

from experiments.claim import Setting
from generative.diffusion.data.split import Images
from generative.diffusion.pipeline import Pipeline
from generative.diffusion.recipes import Recipe
from generative.diffusion.training.course import Course


def learned(setting: Setting, recipe: Recipe, data: Images, share: float) -> tuple[Pipeline, float]:
    """What was trained on captioned images, and the minutes it took; `share` of the setting's work is this."""
    accelerator = Accelerator(cpu=setting.device.type == "cpu")
    course = Course(recipe.model, recipe.parts, data, None, recipe.train, seed=setting.seed, accelerator=accelerator)
    began = time.perf_counter()
    for step, metrics in course.run():
        if step % 20 == 0:
            loss = metrics.get("loss", metrics.get("autoencoder_loss", torch.zeros(())))
            setting.report(share * step / course.total, f"learns, loss {loss.item():.4f}")
    return course.result(), (time.perf_counter() - began) / 60
