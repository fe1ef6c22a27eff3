"""The UNet of denoising diffusion: residual blocks down to few pixels and up again, with skips between equals.

    x [B, C, H, W] -> conv -> level 0 .. L-1 (blocks, then half the size) -> middle -> level L-1 .. 0 -> conv

Every block is told the noise level and the class. Self-attention joins all pixels of a level where the level is small
enough to afford it; with a context, those levels also attend to it.

Sources: Ronneberger et al. 2015 (shape); Ho et al. 2020, appendix B (blocks, attention); Dhariwal & Nichol 2021,
sec. 3 (scale and shift, attention at several levels); Rombach et al. 2022, sec. 3.3 (context). `backbones.convert.unet`
passes weights to and from diffusers' `UNet2DModel` and `UNet2DConditionModel`.

Key: C channels in, D channels out, E features of the condition, F features of a token of the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from backbones.embeddings import ClassEmbedding, TimestepMLP, entrance, timestep_waves
from backbones.masks import FULL, Mask
from backbones.replicas import under_vmap
from backbones.shape import wrong
from backbones.unet_blocks import (
    DownLevel,
    Middle,
    NoAttention,
    PixelAttention,
    Prompt,
    PromptAttention,
    Resample,
    ResidualBlock,
    TellName,
    UpLevel,
    zero,
)

LabelName = Literal["class", "level", "vector"]


class UNet(nn.Module):
    """A noisy image, its noise level and its class -> an image of the same size.

    Args:
        in_channels: C.
        out_channels: D.
        width: channels of the first level.
        multipliers: channels of each level, in units of `width`. Each level after the first halves the image.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: the levels, counted from 0, whose pixels attend to each other.
        classes: number of labels, or None for a network that is told none. Label `classes` is the null label.
        groups: channel groups of every normalisation.
        head_width: channels of one attention head, or of each level's; a level that has fewer has one head.
        context: F, for levels that also attend to a context, or None.
        layers: Transformer blocks of an attention to the context, or of each level's.
        middle: whether the pixels of the middle attend.
        middle_groups: of the normalisation before the middle's own attention, by default `groups`; 0 for none.
        tell: how a block hears of the condition (see `ResidualBlock`).
        label: what a label is: a class, a second noise level (a float), or a vector [B, E] of the condition itself.
        eps: of the normalisations.
        offset: of the waves (see `timestep_waves`).
        sine_first: of the waves.
        corner: whether halving adds zeros on the right and below only (see `Resample`).
        center: whether x is in [0, 1], to be moved to [-1, 1].

    Raises:
        ValueError: when the width is odd, a level's channels do not divide by `groups` or into heads, or a level does
            not exist.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 64,
        multipliers: Sequence[int | float] = (1, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1,),
        classes: int | None = None,
        groups: int = 8,
        head_width: int | Sequence[int] = 32,
        *,
        context: int | None = None,
        layers: int | Sequence[int] = 1,
        middle: bool = True,
        middle_groups: int | None = None,
        tell: TellName = "scale-shift",
        label: LabelName = "class",
        eps: float = 1e-5,
        offset: int = 0,
        sine_first: bool = False,
        corner: bool = False,
        center: bool = False,
    ) -> None:
        super().__init__()
        self.channels = channels = [round(width * m) for m in multipliers]
        last, embedding = len(channels) - 1, 4 * width
        if label != "class" and classes is not None:
            raise ValueError(f"UNet classes={classes}, label={label!r}: expected label='class', or no classes")
        if any(not 0 <= level <= last for level in attention):
            raise ValueError(f"UNet attention={attention}: there are levels 0 to {last}")
        if width % 2 or width // 2 <= offset:
            raise ValueError(
                f"UNet width={width}: sines and cosines are half of it each: expected {2 * offset + 2}, ..."
            )
        widths = [head_width] * len(channels) if isinstance(head_width, int) else list(head_width)
        depths = [layers] * len(channels) if isinstance(layers, int) else list(layers)
        if not len(widths) == len(depths) == len(channels):
            raise ValueError(
                f"UNet head_width={head_width}, layers={layers}: expected one for each of {last + 1} levels"
            )
        for level, c in enumerate(channels):
            attends = level in attention or (middle and level == last)
            if c % groups or (attends and c > widths[level] and c % widths[level]):
                raise ValueError(
                    f"UNet level {level} has {c} channels: not divisible by groups={groups} and "
                    f"head_width={widths[level]}"
                )
        self.arguments: dict[str, Any] = {
            **{"in_channels": in_channels, "out_channels": out_channels, "width": width, "multipliers": multipliers},
            **{"blocks": blocks, "attention": attention, "classes": classes, "groups": groups, "label": label},
            **{"head_width": head_width, "context": context, "layers": layers, "middle": middle, "tell": tell},
            **{"middle_groups": middle_groups, "eps": eps, "offset": offset, "sine_first": sine_first},
            **{"corner": corner, "center": center},
        }  # what it takes to make it again, as JSON can hold it
        self.in_channels, self.width, self.classes, self.context, self.label = (
            in_channels,
            width,
            classes,
            context,
            label,
        )
        self._told = None if label == "class" and classes is None else (embedding,) if label == "vector" else ()
        self.offset, self.sine_first, self.center = offset, sine_first, center
        self.heads = [max(1, c // w) for c, w in zip(channels, widths, strict=True)]  # of each level

        def residual(i: int, o: int) -> ResidualBlock:
            return ResidualBlock(i, o, embedding, groups, eps, tell)

        def attends_at(level: int, groups: int) -> nn.Module:
            if context is None:
                return PixelAttention(channels[level], self.heads[level], groups, eps)
            return PromptAttention(channels[level], self.heads[level], groups, context, depths[level])

        def attentions(level: int, count: int) -> list[nn.Module]:
            return [attends_at(level, groups) if level in attention else NoAttention() for _ in range(count)]

        self.time_embedding = TimestepMLP(width, embedding)
        self.class_embedding: nn.Module | None = None
        if label == "level":
            self.class_embedding = TimestepMLP(width, embedding)
        elif label == "class" and classes is not None:
            self.class_embedding = ClassEmbedding(classes, embedding)
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down_blocks = nn.ModuleList()
        skips = [width]  # channels of every skip, in the order they are made
        for i, c in enumerate(channels):
            ins = [channels[i - 1] if i else width] + [c] * (blocks - 1)
            half = Resample(c, stride=2, corner=corner) if i < last else None
            self.down_blocks.append(DownLevel([residual(c_in, c) for c_in in ins], attentions(i, blocks), half))
            skips += [c] * (blocks + (i < last))
        end, own = channels[-1], groups if middle_groups is None else middle_groups
        self.mid_block = Middle(
            [residual(end, end), residual(end, end)],
            attends_at(last, own if context is None else groups) if middle else NoAttention(),
        )
        self.up_blocks = nn.ModuleList()
        for i, c in reversed(list(enumerate(channels))):
            ins = [channels[min(i + 1, last)] if j == 0 else c for j in range(blocks + 1)]
            resnets = [residual(c_in + skips.pop(), c) for c_in in ins]
            double = Resample(c, stride=1) if i else None
            self.up_blocks.append(UpLevel(resnets, attentions(i, blocks + 1), double))
        self.conv_norm_out = nn.GroupNorm(groups, channels[0], eps)
        self.conv_out = nn.Conv2d(channels[0], out_channels, 3, padding=1)

    def initialise(self, generator: torch.Generator) -> None:
        zero(self.conv_out)

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        t: Float[Tensor, "B"],
        label: Shaped[Tensor, "B *E"] | None = None,
        context: Float[Tensor, "B S F"] | None = None,
        mask: Mask = FULL,
    ) -> Float[Tensor, "B D H W"]:
        """The output for noisy images `x` at timesteps `t` (in training steps) under `label` (null where not told).

        Args:
            x: noisy images, of any size.
            t: timesteps.
            label: int64 [B] in 0 ... classes; or a level, float [B]; or a vector, [B, E]. See `label` above.
            context: what the attending levels look at; needed by a network made with `context`, and only by it.
            mask: which positions of the context are seen (`masks.padding`).

        Raises:
            ShapeError: for images or a context of another number of features than it was made for, or anything that
                is not one for each image.
            ValueError: for a context or a label that is missing; for a label, a context or a mask that nobody reads.
        """
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise wrong("UNet: x", x, f"[B, {self.in_channels}, H, W]")
        entrance("UNet", x, t, label, context, mask, told=self._told, features=self.context)
        condition = functional.silu(self._condition(t, label, x.dtype))  # [B, E]
        prompt = None if context is None else Prompt(context, mask)
        x = x if under_vmap(x) else x.contiguous(memory_format=torch.channels_last)
        x = self.conv_in(2 * x - 1 if self.center else x)
        skips = [x]
        for level in self.down_blocks:
            x = level(x, condition, prompt, skips)
        x = self.mid_block(x, condition, prompt)
        for level in self.up_blocks:
            x = level(x, condition, prompt, skips)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))

    def _condition(self, t: Tensor, label: Tensor | None, dtype: torch.dtype) -> Float[Tensor, "B E"]:
        def waves(level: Tensor) -> Tensor:
            return timestep_waves(level, self.width, offset=self.offset, sine_first=self.sine_first).to(dtype)

        condition: Tensor = self.time_embedding(waves(t))
        if self._told is None:
            return condition
        if label is None and self.classes is not None:
            label = torch.full_like(t, self.classes, dtype=torch.int64)
        if label is None:
            raise ValueError(f"UNet: its label is a {self.label}, which has no null: expected one for each image")
        if self.class_embedding is None:
            return condition + label
        return condition + self.class_embedding(waves(label) if self.label == "level" else label)
