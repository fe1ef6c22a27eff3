"""DiT: the denoiser that is a Transformer over patches.

    tokens = conv(x) + sincos(places)        condition c = mlp(waves(t)) + class vector
    tokens <- blocks(tokens, c), modulated by adaLN-zero
    output = patches(linear(shift(c) + (1 + scale(c)) norm(tokens)))

Source: Peebles & Xie 2023, "Scalable diffusion models with Transformers", sec. 3.2; the layers are those of
`backbones.stack` with modulation. Optionally each block attends to a context (the tokens of a prompt) between its two
sublayers, as in PixArt-alpha (Chen et al. 2023, sec. 2.2); that layer starts at zero too. What the last token of the
context has read of all others may join the condition c, as in Stable Diffusion 3 (Esser et al. 2024, sec. 4); there it
goes through two layers, here through one.

Departure from the paper's code: the frequencies of t end at 1/10000 exactly (`offset=1`), as in diffusers, whose
weights are ours.

Key: B batch, C channels in, D channels out, p side of a patch, T patches, W width, E features of the context.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones import feed_forward as networks
from backbones.attention import Attention
from backbones.embeddings import ClassEmbedding, TimestepMLP, entrance, timestep_waves
from backbones.feed_forward import FeedForwardName
from backbones.masks import FULL, Mask
from backbones.stack import NORMS, Block, Change, Modulation, Stack
from backbones.vision import Patches, Sincos2D, Size

WAVES = 256  # features of t before the first layer that reads them
EPS = 1e-6  # of every norm in the paper's code


class Condition(nn.Module):
    """Noise level and class -> one vector: mlp(waves(t)) + class vector; a missing label is the null label."""

    def __init__(self, classes: int | None, width: int) -> None:
        super().__init__()
        self.timestep = TimestepMLP(WAVES, width)
        self.label = None if classes is None else ClassEmbedding(classes, width)

    def initialise(self, generator: torch.Generator) -> None:
        """N(0, 0.02^2), as in the paper's code."""
        for weight in (self.timestep.linear_1.weight, self.timestep.linear_2.weight):
            weight.normal_(std=0.02, generator=generator)
        self.timestep.linear_1.bias.zero_()
        self.timestep.linear_2.bias.zero_()
        if self.label is not None:
            self.label.weight.normal_(std=0.02, generator=generator)

    def forward(self, t: Float[Tensor, "B"], label: Int64[Tensor, "B"] | None) -> Float[Tensor, "B W"]:
        waves = timestep_waves(t, WAVES, offset=1).to(self.timestep.linear_1.weight.dtype)
        if self.label is None:
            return self.timestep(waves)
        if label is None:
            label = torch.full_like(t, self.label.null, dtype=torch.int64)
        return self.timestep(waves) + self.label(label)


class OwnModulation(Modulation):
    """Modulation of block `index` where every block has a condition of its own: the conditions come side by side."""

    def __init__(self, index: int, width: int) -> None:
        super().__init__(width, width)
        self.index = index

    def forward(self, condition: Float[Tensor, "B LW"]) -> tuple[Change, Change]:
        width = self.linear.in_features
        return super().forward(condition[:, self.index * width : (self.index + 1) * width])


class DiT(nn.Module):
    """A noisy picture, its noise level and its class -> a picture of the same size; the same call as a UNet's.

    It starts as the paper's does: linear maps Xavier-uniform with zero biases, every block the identity, output zero.

    Args:
        size: height and width of a picture, in pixels; one number where they are equal.
        channels: C.
        patch: p. Smaller sees finer, and costs 1/p^2 tokens.
        width: W; a multiple of 4.
        depth: number of blocks.
        heads: attention heads; divides W.
        classes: number of labels, or None for a network that is told none. Label `classes` is the null label.
        out_channels: D, by default C; 2 C where the network also says a variance (Nichol & Dhariwal 2021).
        hidden: width inside the feed-forward network, by default 4 W.
        feed_forward: the network of each position.
        context: E, for blocks that attend to a context, or None.
        pooled: whether the context's last token, which in a causal encoder has read all others, is also part of the
            condition. Prompts are learned sooner so (docs/notebook.md).
        own: whether every block embeds t and label for itself, as in diffusers' weights, rather than all together.
        eps: of the norm before the feed-forward network; that of all others is 1e-6.

    Raises:
        ValueError: where the patch does not divide the size, the heads the width, or 4 the width; for `pooled` without
            a context.
    """

    def __init__(
        self,
        size: Size,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        classes: int | None = None,
        *,
        out_channels: int | None = None,
        hidden: int | None = None,
        feed_forward: FeedForwardName = "gelu-tanh",
        context: int | None = None,
        pooled: bool = False,
        own: bool = False,
        eps: float = EPS,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            **{"size": size, "channels": channels, "patch": patch, "width": width, "depth": depth, "heads": heads},
            **{"classes": classes, "out_channels": out_channels, "hidden": hidden, "feed_forward": feed_forward},
            **{"context": context, "pooled": pooled, "own": own, "eps": eps},
        }  # what it takes to make it again, as JSON can hold it
        if pooled and context is None:
            raise ValueError("DiT: pooled, and made for context=None: expected the features of a context")
        self.classes, self.context = classes, context
        self.pool = nn.Linear(context, width) if pooled and context is not None else None
        self.patches = Patches(size, channels, patch, width)
        self.conditions = nn.ModuleList([Condition(classes, width) for _ in range(depth if own else 1)])
        blocks = []
        for index in range(depth):
            block = Block(
                Attention(width, heads, bias=True),
                networks.make(feed_forward, width, hidden, bias=True),
                lambda: NORMS["plain"](width, EPS),
                cross=None if context is None else Attention(width, heads, bias=True, context=context),
                modulation=OwnModulation(index, width) if own else Modulation(width, width),
            )
            block.feed_forward_norm = NORMS["plain"](width, eps)
            blocks.append(block)
        self.stack = Stack(blocks, Sincos2D(width))
        self.norm = NORMS["plain"](width, EPS)
        self.modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, patch * patch * (channels if out_channels is None else out_channels))

    def initialise(self, generator: torch.Generator) -> None:
        """The paper's code, `initialize_weights`."""
        for block in self.stack.layers:
            for module in block.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_uniform_(module.weight, generator=generator)
                    module.bias.zero_()
            if block.modulation is not None:
                block.modulation.linear.weight.zero_()
            if block.cross is not None:
                block.cross.output.weight.zero_()
        nn.init.xavier_uniform_(self.patches.conv.weight.flatten(1), generator=generator)  # as the linear map it is
        if self.pool is not None:
            nn.init.xavier_uniform_(self.pool.weight, generator=generator)
            self.pool.bias.zero_()
        for bias in (self.patches.conv.bias, self.modulation.bias, self.output.bias):
            if bias is not None:
                bias.zero_()
        self.modulation.weight.zero_()
        self.output.weight.zero_()

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        t: Float[Tensor, "B"],
        label: Int64[Tensor, "B"] | None = None,
        context: Float[Tensor, "B S E"] | None = None,
        mask: Mask = FULL,
    ) -> Float[Tensor, "B D H W"]:
        """The output for noisy pictures `x` at timesteps `t` (in training steps) under `label` (null where not told).

        Args:
            x: noisy pictures.
            t: timesteps.
            label: in 0 ... classes; only for a network made with `classes`.
            context: what the blocks attend to; needed by a network made with `context`, and only by it.
            mask: which positions of the context are seen (`masks.padding`).

        Raises:
            ShapeError: for pictures or a context of another shape than it was made for, or anything that is not one
                for each picture.
            ValueError: for a context that is missing; for a label, a context or a mask that nobody reads; for a mask
                where the context is pooled, whose last token is then another for each picture.
        """
        told = None if self.classes is None else ()
        entrance("DiT", x, t, label, context, mask, told=told, features=self.context)
        if self.pool is not None and mask.allowed is not None:
            raise ValueError("DiT: a mask of a context that is pooled: expected none")
        parts = [embed(t, label) for embed in self.conditions]
        if self.pool is not None and context is not None:
            read = self.pool(context[:, -1])
            parts = [part + read for part in parts]
        condition = torch.cat(parts, dim=1)  # [B, W], or [B, depth W]
        places = self.patches.places(x.device)[None]
        memory = None if context is None else self.stack.remember(context)
        tokens = self.stack(self.patches(x), places, memory=memory, context_mask=mask, condition=condition)
        first = condition[:, : self.modulation.in_features]
        shift, scale = self.modulation(functional.silu(first))[:, None].chunk(2, dim=-1)  # [B, 1, W] each
        return self.patches.join(self.output(torch.addcmul(shift, self.norm(tokens), 1 + scale)))
