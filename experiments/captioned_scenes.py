"""Scenes drawn from their captions, and checked exactly, also of pairs and things that were never trained on.

Ours is what `qx diffuse scenes` does. A picture obeys its caption when what stands in its cells, read back pixel by
pixel, is what the caption says and nothing else (`generative.diffusion.data.scenes`). Three sides are judged: captions
of the training; "pair": two things that were never seen together; "thing": one of six things of which every shape and
every colour was seen, but never this shape in this colour.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from torch import Tensor

from experiments.claim import Claim, Finding, Number, Setting
from experiments.learned import learned
from generative.diffusion.data.scenes import SIDES, obeyed, scenes
from generative.diffusion.data.scenes.sampling import Side
from generative.diffusion.data.split import Images
from generative.diffusion.recipes import SCENES, Recipe
from lab import plots, streams

BAR, COUNT, TRAINED = 0.95, 500, 10_000
DRAWING = SCENES.drawing
"""The pictures that count: as `qx diffuse scenes` draws them for its report."""
PLAIN = 1.0
"""Guidance of others, which stand beside them in the table."""

CLAIM = Claim(
    claim="A latent diffusion model draws grid scenes that obey their captions, also of pairs and of things that it "
    "has never seen.",
    source="this project's own; composition of what was seen apart: Park et al. 2021, Benchmark for compositional "
    "text-to-image synthesis, NeurIPS datasets and benchmarks",
    stated={f"obeyed, {side}": f">= {BAR}" for side in SIDES},
    minutes=45.0,
)


def run(setting: Setting) -> Finding:
    """Train and judge."""
    return judge(setting, SCENES, COUNT)


def judge(setting: Setting, recipe: Recipe, count: int) -> Finding:
    """The finding of a recipe, over `count` captions of each side."""
    data = scenes(setting.seed, TRAINED)
    pipeline, minutes = learned(setting, recipe, data, share=0.85)
    told = {side: list(asked(setting.seed, count, side).captions or ()) for side in SIDES}
    drawn: dict[tuple[Side, float], Tensor] = {}
    for guidance in (PLAIN, DRAWING.guidance):
        for side, captions in told.items():
            setting.report(0.87, f"draws {side}, guidance {guidance:g}")
            drawn[side, guidance] = pipeline.sample(
                captions, seed=setting.seed, **DRAWING._replace(guidance=guidance)._asdict()
            )
    good = {key: obeyed(images.cpu(), told[key[0]]) for key, images in drawn.items()}
    share = {key: right.double().mean().item() for key, right in good.items()}
    found: dict[str, Number] = {f"obeyed, {side}": round(share[side, DRAWING.guidance], 4) for side in SIDES}
    verdict = (
        f"{', '.join(f'{share[side, DRAWING.guidance]:.1%} ({side})' for side in SIDES)} of {count} captions each are "
        f"obeyed, at guidance {DRAWING.guidance:g}, after {minutes:.0f} minutes of training"
    )
    both = (PLAIN, DRAWING.guidance)
    rows = [(side, *(f"{share[side, guidance]:.1%}" for guidance in both)) for side in SIDES]
    holds = all(share[side, DRAWING.guidance] >= BAR for side in SIDES)
    shown: dict[str, tuple[Tensor, Sequence[str], Sequence[bool]]] = {
        side: (drawn[side, DRAWING.guidance], told[side], good[side, DRAWING.guidance].tolist()) for side in SIDES
    }
    return Finding(found, holds, verdict, album(shown), ("captions", *(f"guidance {g:g}" for g in both)), rows)


def asked(seed: int, count: int, side: Side) -> Images:
    """The scenes whose captions are asked for: none of those by which the recipe was found, nor of the training."""
    return scenes(streams.derive(seed, "judged"), count, side)


def album(sides: dict[str, tuple[Tensor, Sequence[str], Sequence[bool]]], columns: int = 8) -> Figure:
    """The first pictures of each side with their captions; in red what disobeys."""
    made, axes = plots.figure(len(sides), columns, width=1.7, height=2.1)
    for row, (side, (images, captions, right)) in enumerate(sides.items()):
        for column in range(columns):
            ax = axes[row * columns + column]
            ax.set_axis_off()
            if column >= len(images):
                continue
            ax.imshow(((images[column].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu().numpy(), interpolation="nearest")
            words = captions[column].split()
            half = -(-len(words) // 2)
            text = "\n".join(" ".join(part) for part in (words[:half], words[half:]) if part)
            colour = plots.INK if right[column] else plots.COLOURS[4]
            ax.text(0.5, -0.05, text, transform=ax.transAxes, ha="center", va="top", fontsize=7, color=colour)
            if column == 0:
                ax.set_title(side, loc="left", fontsize=9)
    return made
