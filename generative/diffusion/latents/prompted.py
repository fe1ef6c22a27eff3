"""Denoisers that are told a prompt: what is trained, and for what.

    words = text(captions, TextConfig(), generator)
    denoiser = build(lambda: network_of(DiffusionConfig(), Subject((3, 16, 16), features=words.features)), generator)
    data = TensorData({"image": images, "tokens": words.tokens(captions).ids})
    trainer = Trainer(Prompted(denoiser, words.encoder), Captioned(DDPM(schedule, "v"), words.null), data, ...)

Text encoder and denoiser are trained together (Rombach et al. 2022, sec. 4.3.1). For classifier-free guidance a share
of the samples is shown the empty prompt instead of its own (Ho & Salimans 2022, alg. 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from generative.diffusion.latents.text import contexts
from generative.diffusion.training.objective import DROP
from generative.train import Batch, Losses, Objective
from lab import streams


class Prompted(nn.Module):
    """A denoiser and the encoder that reads to it, as one module to train.

    Args:
        denoiser: called as (x, t, None, context=[B, S, F]).
        encoder: ids -> features (`text.contexts`).
    """

    def __init__(self, denoiser: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.encoder = denoiser, encoder

    def forward(
        self, x: Float[Tensor, "B *shape"], t: Float[Tensor, "B"], ids: Int64[Tensor, "B S"]
    ) -> Float[Tensor, "B *output"]:
        """What the denoiser says of `x` at timestep `t` for the prompts `ids`."""
        return self.denoiser(x, t, None, context=contexts(self.encoder, ids))


@dataclass(frozen=True, eq=False)
class Captioned:
    """An objective for denoisers, with prompts, over batches {"image": [B, *shape], "tokens": ids int64 [B, S]}.

    Args:
        objective: made without labels; it calls its model as (x, t, None), which is passed on as (x, t, ids).
        null: ids of the empty prompt.
        dropout: share of the samples shown the empty prompt. Larger helps guidance, and costs obedience.
    """

    objective: Objective
    null: Int64[Tensor, "S"]
    dropout: float = 0.1

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """The objective's own losses of a model that is told the prompts."""
        dropped = streams.uniform(key, DROP) < self.dropout  # [B]: the draw that an objective with labels takes
        ids = torch.where(dropped[:, None], self.null.to(key.device), batch["tokens"])
        return self.objective.loss(_Told(model, ids), batch, key)


class _Told(nn.Module):
    """A model that is called without label, and tells the prompts of this batch."""

    def __init__(self, model: nn.Module, ids: Tensor) -> None:
        super().__init__()
        self.model, self.ids = model, ids

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        if label is not None:
            raise ValueError(
                f"a label of shape {list(label.shape)} beside a prompt: expected an objective without labels"
            )
        return self.model(x, t, self.ids)
