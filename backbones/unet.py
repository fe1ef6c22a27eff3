"""The UNet of denoising diffusion: residual blocks down to few pixels and up again, with skips between equals.

    x [B, C, H, W] -> conv -> level 0 .. L-1 (blocks, then half the size) -> middle -> level L-1 .. 0 -> conv

Every block is told the noise level and the class by a scale and a shift of its second normalisation. Self-attention
joins all pixels of a level where the level is small enough to afford it.

Sources: Ronneberger et al. 2015 (shape); Ho et al. 2020, appendix B (blocks, attention); Dhariwal & Nichol 2021,
sec. 3 (scale and shift, attention at several levels). The weights bear the names that diffusers' `UNet2DModel`
(resnet_time_scale_shift="scale_shift") gives them, so that a state dict passes between the two unchanged.

Key: C channels of a level, E width of the condition's embedding.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.embeddings import ClassEmbedding, TimestepMLP, timestep_waves


class ResidualBlock(nn.Module):
    """x + conv(silu(modulate(norm(conv(silu(norm(x))))))); the second conv starts at zero, so the block starts as x."""

    def __init__(self, in_channels: int, out_channels: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, 2 * out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def initialise(self, generator: torch.Generator) -> None:
        zero(self.conv2)

    def forward(self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "B E"]) -> Float[Tensor, "B D H W"]:
        scale, shift = self.time_emb_proj(functional.silu(embedding))[:, :, None, None].chunk(
            2, dim=1
        )  # [B, D, 1, 1] each
        y = self.conv1(functional.silu(self.norm1(x)))  # [B, D, H, W]
        y = self.conv2(functional.silu(torch.addcmul(shift, self.norm2(y), 1 + scale)))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class PixelAttention(nn.Module):
    """Multi-head self-attention over the pixels of one level, added to its input; the output layer starts at zero."""

    def __init__(self, channels: int, head_width: int, groups: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_width)
        self.group_norm = nn.GroupNorm(groups, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def initialise(self, generator: torch.Generator) -> None:
        zero(self.to_out[0])

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)  # [B, H*W, C]
        q, k, v = (
            to(tokens).unflatten(2, (self.heads, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v)
        )  # [B, heads, H*W, C/heads]
        y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, H*W, C]
        return x + self.to_out[0](y).transpose(1, 2).unflatten(2, x.shape[2:])


class Resample(nn.Module):
    """Half the size by a strided convolution, or `size` by repeating pixels and a convolution."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)

    def forward(self, x: Float[Tensor, "B C H W"], size: tuple[int, int] | None = None) -> Float[Tensor, "B C h w"]:
        return self.conv(x if size is None else functional.interpolate(x, size=size, mode="nearest"))


class DownLevel(nn.Module):
    """The blocks of one resolution on the way down; every block's output, and the halved image, becomes a skip."""

    def __init__(
        self, ins: list[int], out: int, embedding: int, groups: int, head_width: int | None, *, halves: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(c, out, embedding, groups) for c in ins])
        self.attentions = attentions(len(ins), out, head_width, groups)
        self.downsamplers = nn.ModuleList([Resample(out, stride=2)] if halves else [])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for block, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(block(x, embedding))
            skips.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips.append(x)
        return x


class UpLevel(nn.Module):
    """The blocks of one resolution on the way up; every block takes back one skip beside its input."""

    def __init__(
        self, ins: list[int], out: int, embedding: int, groups: int, head_width: int | None, *, doubles: bool
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(c, out, embedding, groups) for c in ins])
        self.attentions = attentions(len(ins), out, head_width, groups)
        self.upsamplers = nn.ModuleList([Resample(out, stride=1)] if doubles else [])

    def forward(self, x: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for block, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(block(torch.cat([x, skips.pop()], dim=1), embedding))
        for upsampler in self.upsamplers:
            x = upsampler(x, skips[-1].shape[2:])  # the size before halving, also where it was odd
        return x


def attentions(count: int, channels: int, head_width: int | None, groups: int) -> nn.ModuleList:
    """One attention for each block of a level, or nothing in its place where the level has none."""
    if head_width is None:
        return nn.ModuleList([nn.Identity() for _ in range(count)])
    return nn.ModuleList([PixelAttention(channels, head_width, groups) for _ in range(count)])


class Middle(nn.Module):
    """Block, attention, block at the smallest resolution."""

    def __init__(self, channels: int, embedding: int, groups: int, head_width: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(channels, channels, embedding, groups) for _ in range(2)])
        self.attentions = nn.ModuleList([PixelAttention(channels, head_width, groups)])

    def forward(self, x: Float[Tensor, "B C H W"], embedding: Float[Tensor, "B E"]) -> Float[Tensor, "B C H W"]:
        return self.resnets[1](self.attentions[0](self.resnets[0](x, embedding)), embedding)


class UNet(nn.Module):
    """A noisy image, its noise level and its class -> an image of the same size.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        width: channels of the first level.
        multipliers: channels of each level, in units of `width`. Each level after the first halves the image.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: the levels, counted from 0, whose pixels attend to each other; the middle always does.
        classes: number of labels, or None for a network that is told none. Label `classes` is the null label.
        groups: channel groups of every normalisation.
        head_width: channels of one attention head.

    Raises:
        ValueError: when a level's channels do not divide by `groups` or into heads, or a level does not exist.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 64,
        multipliers: tuple[int, ...] = (1, 2),
        blocks: int = 2,
        attention: tuple[int, ...] = (1,),
        classes: int | None = None,
        groups: int = 8,
        head_width: int = 32,
    ) -> None:
        super().__init__()
        channels = [width * m for m in multipliers]
        for level, c in enumerate(channels):
            attends = level in attention or level == len(channels) - 1
            if c % groups or (attends and c > head_width and c % head_width):
                raise ValueError(
                    f"UNet level {level} has {c} channels: not divisible by groups={groups} and head_width={head_width}"
                )
        if any(not 0 <= level < len(channels) for level in attention):
            raise ValueError(f"UNet attention={attention}: there are levels 0 to {len(channels) - 1}")
        self.width, self.classes, embedding, last = width, classes, 4 * width, len(channels) - 1
        self.time_embedding = TimestepMLP(width, embedding)
        self.class_embedding = None if classes is None else ClassEmbedding(classes, embedding)
        self.conv_in = nn.Conv2d(in_channels, width, 3, padding=1)

        self.down_blocks = nn.ModuleList()
        skips = [width]  # channels of every skip, in the order they are made
        for i, c in enumerate(channels):
            ins = [channels[max(i - 1, 0)]] + [c] * (blocks - 1)
            heads = head_width if i in attention else None
            self.down_blocks.append(DownLevel(ins, c, embedding, groups, heads, halves=i < last))
            skips += [c] * (blocks + (i < last))
        self.mid_block = Middle(channels[-1], embedding, groups, head_width)
        self.up_blocks = nn.ModuleList()
        for i, c in reversed(list(enumerate(channels))):
            ins = [channels[min(i + 1, last)] if j == 0 else c for j in range(blocks + 1)]
            ins = [c_in + skips.pop() for c_in in ins]
            heads = head_width if i in attention else None
            self.up_blocks.append(UpLevel(ins, c, embedding, groups, heads, doubles=i > 0))
        self.conv_norm_out = nn.GroupNorm(groups, width)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)

    def initialise(self, generator: torch.Generator) -> None:
        zero(self.conv_out)

    def forward(
        self, x: Float[Tensor, "B C H W"], t: Float[Tensor, "B"], label: Int64[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B D H W"]:
        """The output for noisy images `x` at timesteps `t` (in training steps) under `label` (null where not told)."""
        embedding = self.time_embedding(timestep_waves(t, self.width).to(x.dtype))  # [B, E]
        if self.class_embedding is not None:
            if label is None:
                label = torch.full_like(t, self.class_embedding.null, dtype=torch.int64)
            embedding = embedding + self.class_embedding(label)
        x = self.conv_in(x.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for level in self.down_blocks:
            x = level(x, embedding, skips)
        x = self.mid_block(x, embedding)
        for level in self.up_blocks:
            x = level(x, embedding, skips)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))


def zero(layer: nn.Module) -> None:
    """Weights and bias of a layer whose output is to start at zero (Ho et al. 2020; Goyal et al. 2017, sec. 5.1)."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
