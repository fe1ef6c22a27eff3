"""A denoiser in stock parts: what a folder of diffusers holds, ready for our engine, and back.

    stock = open_folder(path)                                       # `folder`
    engine = stock.engine()
    images = stock.decode(engine.sample([Request(0, "unipc", 20, condition=stock.conditions(["a red square"])[0])]))
    save_folder(other, stock)                                       # `export`

Here is what reading and writing share: the kinds of pipelines and their parts, and the null label of a DiT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from generative.diffusion.latents.text import Text
from generative.diffusion.parts import Parts
from generative.diffusion.solvers.schedulers import Schedulers
from generative.diffusion.stock.adapters import Latents

INDEX = "model_index.json"
UNET, CONDITIONAL, DIT = ("UNet2DModel",), ("UNet2DConditionModel",), ("DiTTransformer2DModel", "Transformer2DModel")
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "DDPMPipeline": {"unet": UNET, "scheduler": ()},
    "DDIMPipeline": {"unet": UNET, "scheduler": ()},
    "LDMPipeline": {"unet": UNET, "vqvae": ("AutoencoderKL", "VQModel"), "scheduler": ()},
    "DiTPipeline": {"transformer": DIT, "vae": ("AutoencoderKL",), "scheduler": ()},
    "StableDiffusionPipeline": {
        "unet": CONDITIONAL,
        "vae": ("AutoencoderKL",),
        "text_encoder": ("CLIPTextModel",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "scheduler": (),
    },
}
"""The pipelines we read and write: the folder of each part, and the classes it may be of (any, for a scheduler)."""

FORCED = {"steps_offset": 1, "clip_sample": False}
"""What a `StableDiffusionPipeline` sets in its scheduler's configuration, whatever the folder says."""

NULL = 1000
"""The label that a `DiTPipeline` shows the network beside the wanted one, however many classes there are."""
LABELS = "class_embedder.embedding_table.weight"  # how the names of a DiT's class vectors end


@dataclass(frozen=True, eq=False)
class Stock(Parts):
    """A network with the stock parts around it."""

    network: nn.Module
    """Ours, and called as the engine calls it."""
    shape: tuple[int, int, int]
    """Of a sample: an image, or a latent where there are `latents`."""
    scheduler: Any
    """diffusers' scheduler that it came with, or is to be sampled with."""
    classes: int | None = None
    """Number of labels, or None for a network that is told none."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """The labels by name, where they have names."""
    latents: Latents | None = None
    text: Text | None = None

    def compiler(self) -> Schedulers:
        """The solvers of `schedulers`."""
        return Schedulers(self.scheduler)


def widened(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A DiT of fewer classes as one whose null label is 1000, where `DiTPipeline` looks for it.

    The labels in between repeat the null label's vector. Raises ValueError for more classes.
    """
    classes = config["num_embeds_ada_norm"]
    if classes > NULL:
        raise ValueError(f"a DiTPipeline has at most {NULL} classes; this network has {classes}")
    wide = {
        name: torch.cat([w, w[-1:].expand(NULL - classes, -1)]) if name.endswith(LABELS) else w
        for name, w in weights.items()
    }
    return {**config, "num_embeds_ada_norm": NULL}, wide


def narrowed(
    config: Mapping[str, Any], weights: Mapping[str, Tensor], least: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The inverse of `widened`: without the last labels that say what the null label says; the first `least` stay."""
    tables = [w for name, w in weights.items() if name.endswith(LABELS)]
    if config.get("num_embeds_ada_norm", NULL) != NULL or any(len(w) != NULL + 1 for w in tables):
        return dict(config), dict(weights)
    told = [(w != w[-1]).any(1).nonzero().flatten()[-1:] + 1 for w in tables]  # [1], or [0] where all rows are equal
    classes = min(NULL, max([least, *(int(last) for each in told for last in each)]))
    if classes == 0:
        return dict(config), dict(weights)
    few = {name: torch.cat([w[:classes], w[-1:]]) if name.endswith(LABELS) else w for name, w in weights.items()}
    return {**config, "num_embeds_ada_norm": classes}, few
