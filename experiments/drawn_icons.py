"""Silk icons drawn from their names: a thing ("cart") with a badge in a corner ("delete"), also in unseen company.

A thousand icons of 16 x 16 pixels, each with its name, and a DiT of latents that learns all but some. Kept from it
are pairs of which the plain thing was seen, and the badge on other things: every twelfth of them, by name. What is
drawn for such a name is compared with all thousand icons, those of the training among them, by the squared error of
pixels: does it come nearest to the icon of this name, which the model never saw? By chance that is one in a thousand;
what a model draws that knows the thing and no badge comes nearest to the plain thing; and beside it stands what
`pasted_badges` makes of the pixels themselves, told which part of a name is the badge.

The recipe was found with other pairs kept away, every twelfth from the first on; judged are those from the seventh on.

Source of the icons: Silk icon set 1.3, Mark James 2005 (CC BY 2.5).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from matplotlib.figure import Figure
from torch import Tensor

from experiments.claim import Claim, DataError, Finding, Number, Setting
from experiments.learned import learned
from experiments.pasted_badges import pasted
from generative.diffusion.data.npz import npz
from generative.diffusion.data.split import Images
from generative.diffusion.model import DiffusionConfig
from generative.diffusion.recipes import Drawing, Recipe
from generative.diffusion.training.course import PartsConfig
from generative.train import TrainConfig
from lab import plots

BADGES = ("add", "delete", "edit", "error", "go", "key", "lightning", "link")
FEWEST, FIRST, EVERY = 2, 6, 12
"""Badges of a thing of which one may be kept; and which of all those are: the seventh, and every twelfth after it."""
ASKED = ("page add", "user delete")  # are learned, and shown
NOWHERE = ("anchor add", "cake delete", "rainbow key", "sport soccer error", "tux go", "weather snow lightning")
"""Names that no icon has."""
BAR = 0.9
FILE = "silk.npz"

ICONS = Recipe(
    DiffusionConfig(backbone="dit", width=192, blocks=6, patch=1),
    PartsConfig(prompts=True, latent=True, halvings=2, latent_channels=16, kl=1e-4, autoencoder_steps=1000),
    TrainConfig(steps=2500, batch_size=64, learning_rate=2e-3, ema=0.05),
    Drawing("dpmpp-2m", 20, 2.0),
)
JUDGED, OTHERS = ICONS.drawing.guidance, (1.0, 4.0)
"""The guidance whose pictures count, and others that stand beside them in the table."""

CLAIM = Claim(
    claim="A diffusion model that learned named icons puts a known badge on a known thing that it never saw together.",
    source="this project's own; composition of what was seen apart: Park et al. 2021, Benchmark for compositional "
    "text-to-image synthesis, NeurIPS datasets and benchmarks",
    stated={"unseen, nearest to its own icon": f">= {BAR}"},
    minutes=16.0,
)


def run(setting: Setting) -> Finding:
    """Train and judge. Raises DataError where the icons are not there, or have no such names."""
    path = setting.data
    file = None if path is None else path / FILE if path.is_dir() else path
    if file is None or not file.is_file():
        raise DataError(f"drawn-icons needs the icons: name {FILE} (or its folder) with --data")
    return judge(setting, ICONS, npz(file, test=0.0, seed=setting.seed).train)


def kept(names: Sequence[str]) -> list[str]:
    """The pairs that are not learned."""
    have = set(names)
    badged: dict[str, list[str]] = {}
    for name in sorted(have):
        thing, _, badge = name.rpartition(" ")
        if badge in BADGES and thing in have:
            badged.setdefault(thing, []).append(name)
    pairs = [name for those in badged.values() if len(those) >= FEWEST for name in those if name not in ASKED]
    return sorted(pairs)[FIRST::EVERY]


def nearest(drawn: Float[Tensor, "N C H W"], icons: Float[Tensor, "M C H W"]) -> Int64[Tensor, "N"]:
    """Which icon each is nearest to."""
    return torch.cdist(drawn.flatten(1).double(), icons.flatten(1).double()).argmin(1)


def judge(setting: Setting, recipe: Recipe, icons: Images) -> Finding:
    """The finding of a recipe. Raises DataError for icons without a pair that could be kept."""
    names = list(icons.captions or ())
    unseen = kept(names)
    if not unseen:
        raise DataError(
            f"drawn-icons: {len(names)} names, and no pair among them to keep away; expected captions such as "
            '"cart", "cart add", "cart delete"'
        )
    seen = [name for name in names if name not in unseen]
    own = torch.tensor([names.index(name) for name in unseen])
    rest = icons.take(torch.tensor([names.index(name) for name in seen]))
    pipeline, minutes = learned(setting, recipe, rest, share=0.95)
    sides = {"learned": [*ASKED, *seen[:: len(seen) // len(unseen)]][: len(unseen)], "unseen": unseen}
    rows, share, pictures = [], {}, {}
    for guidance in sorted((JUDGED, *OTHERS)):
        setting.report(0.97, f"draws, guidance {guidance:g}")
        for side, told in sides.items():
            how = ICONS.drawing._replace(guidance=guidance)
            drawn = pipeline.sample(told, seed=setting.seed, **how._asdict()).cpu()
            near = [names[i] for i in nearest(drawn, icons.image).tolist()]
            pictures[side, guidance] = drawn
            share[side, guidance] = sum(a == b for a, b in zip(near, told, strict=True)) / len(told)
            if side == "unseen":
                plain = sum(a == b.rpartition(" ")[0] for a, b in zip(near, told, strict=True)) / len(told)
                rows.append((f"{guidance:g}", *(f"{share[which, guidance]:.0%}" for which in sides), f"{plain:.0%}"))
    known = {name: icons.image[names.index(name)] for name in seen}
    paste = [names[i] for i in nearest(torch.stack([pasted(known, name) for name in unseen]), icons.image).tolist()]
    by_hand = sum(a == b for a, b in zip(paste, unseen, strict=True)) / len(unseen)
    rows.append(("pasted pixels", "-", f"{by_hand:.0%}", "-"))
    fancied = pipeline.sample(list(NOWHERE), seed=setting.seed, **ICONS.drawing._asdict()).cpu()
    found: dict[str, Number] = {"unseen, nearest to its own icon": round(share["unseen", JUDGED], 4)}
    verdict = (
        f"{share['unseen', JUDGED]:.0%} of {len(unseen)} unseen names are drawn nearer to their own icon than to any "
        f"of {len(names):,}, at guidance {JUDGED:g}, after {minutes:.0f} minutes on {len(rest):,} others; of pasted "
        f"pixels {by_hand:.0%}"
    )
    figure = _picture(sides, {side: pictures[side, JUDGED] for side in sides}, icons.image[own], fancied)
    header = ("guidance", "learned: its own", "unseen: its own", "unseen: the thing without")
    return Finding(found, share["unseen", JUDGED] >= BAR, verdict, figure, header, rows)


def _picture(
    sides: dict[str, list[str]], drawn: dict[str, Tensor], real: Tensor, fancied: Tensor, columns: int = 6
) -> Figure:
    """Learned names; unseen ones, and beneath each its icon; and names that no icon has."""
    lines = [
        ("learned", drawn["learned"], sides["learned"]),
        *(
            line
            for first in (0, columns)
            for line in (
                ("never seen", drawn["unseen"][first:], sides["unseen"][first:]),
                ("the real icons", real[first:], [""] * columns),
            )
        ),
        ("no such icon", fancied, NOWHERE),
    ]
    made, axes = plots.figure(len(lines), columns, width=1.5, height=1.75)
    for row, (title, images, words) in enumerate(lines):
        for column in range(columns):
            ax = axes[row * columns + column]
            ax.set_axis_off()
            if column >= len(images):
                continue
            ax.imshow(((images[column].clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy(), interpolation="nearest")
            ax.text(0.5, -0.05, words[column], transform=ax.transAxes, ha="center", va="top", fontsize=7)
            if column == 0:
                ax.set_title(title, loc="left", fontsize=9)
    return made
