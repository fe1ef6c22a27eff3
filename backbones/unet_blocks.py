"""The parts of the UNet: residual blocks, attention over pixels or to a prompt, levels down and up.

Every block is told the noise level and the class by its second normalisation (or just before it). The parts bear the
names that diffusers gives them, but for the layers inside `PromptAttention`, which are those of `backbones.stack`.

Pictures are kept channels_last: every part gives the layout back that it was given, so that nothing is copied, and
pixels are tokens without a copy.

Key: B batch, C channels of a level, E features of the condition, S tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from backbones import feed_forward as networks
from backbones.attention import Attention, attend
from backbones.masks import FULL, Mask
from backbones.positions import Positions
from backbones.stack import Block, Stack

TellName = Literal["scale-shift", "add"]


@dataclass(frozen=True)
class Prompt:
    """A context [B, S, F] and the mask of its positions."""

    tokens: Tensor
    mask: Mask = FULL


class ResidualBlock(nn.Module):
    """x + conv(silu(tell(conv(silu(norm(x)))))); the second conv starts at zero, so the block starts as x.

    Args:
        in_channels: of x.
        out_channels: of the result; where they differ, x passes a 1x1 convolution.
        embedding: E.
        groups: of both normalisations.
        eps: of both.
        tell: how it hears of the condition c. "scale-shift": (1 + scale(c)) norm(y) + shift(c) (Dhariwal & Nichol
            2021, sec. 3: adaptive group normalisation); "add": norm(y + linear(c)) (Ho et al. 2020, appendix B).
    """

    def __init__(
        self, in_channels: int, out_channels: int, embedding: int, groups: int, eps: float, tell: TellName
    ) -> None:
        super().__init__()
        self.scales = tell == "scale-shift"
        self.norm1 = nn.GroupNorm(groups, in_channels, eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(embedding, (1 + self.scales) * out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def initialise(self, generator: torch.Generator) -> None:
        zero(self.conv2)

    def forward(self, x: Float[Tensor, "B C H W"], condition: Float[Tensor, "B E"]) -> Float[Tensor, "B D H W"]:
        told = self.time_emb_proj(condition)[:, :, None, None]  # [B, D or 2 D, 1, 1]
        y = self.conv1(functional.silu(self.norm1(x)))  # [B, D, H, W]
        if self.scales:
            scale, shift = told.chunk(2, dim=1)
            y = torch.addcmul(shift, self.norm2(y), 1 + scale)
        else:
            y = self.norm2(y + told)
        y = self.conv2(functional.silu(y))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + y


class NoAttention(nn.Module):
    """What stands where a level has none."""

    def forward(self, x: Float[Tensor, "B C H W"], prompt: Prompt | None) -> Float[Tensor, "B C H W"]:
        return x


class PixelAttention(nn.Module):
    """Multi-head self-attention over the pixels of one level, added to its input; the output layer starts at zero.

    Args:
        channels: C.
        heads: attention heads; divides C.
        groups: of the normalisation; 0 for none.
        eps: of the normalisation.
    """

    attend = staticmethod(attend)  # as in `Attention`

    def __init__(self, channels: int, heads: int, groups: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.group_norm = nn.GroupNorm(groups, channels, eps) if groups else None
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def initialise(self, generator: torch.Generator) -> None:
        zero(self.to_out[0])

    def forward(self, x: Float[Tensor, "B C H W"], prompt: Prompt | None) -> Float[Tensor, "B C H W"]:
        tokens = pixels(x if self.group_norm is None else self.group_norm(x))  # [B, H*W, C]
        q, k, v = (
            to(tokens).view(*tokens.shape[:2], self.heads, -1).transpose(1, 2)
            for to in (self.to_q, self.to_k, self.to_v)
        )  # [B, heads, H*W, C/heads]
        y = self.attend(q, k, v).transpose(1, 2).flatten(2)  # [B, H*W, C]
        return x + picture(self.to_out[0](y), x)


class PromptAttention(nn.Module):
    """Transformer blocks over the pixels of one level that also attend to a prompt; added to x, and zero at first.

    Source: Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models", sec. 3.3 and appendix
    E.2.1. The layers are those of `backbones.stack`: pre-norm, GEGLU of 4 C, biases where diffusers has them.

    Args:
        channels: C.
        heads: attention heads; divides C.
        groups: of the normalisation before.
        context: F, features of a token of the prompt.
        layers: number of blocks.
    """

    def __init__(self, channels: int, heads: int, groups: int, context: int, layers: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, 1e-6)
        self.proj_in = nn.Linear(channels, channels)
        blocks = []
        for _ in range(layers):
            attention, cross = Attention(channels, heads), Attention(channels, heads, context=context)
            attention.output, cross.output = nn.Linear(channels, channels), nn.Linear(channels, channels)
            network = networks.make("geglu", channels, 4 * channels, bias=True)
            blocks.append(Block(attention, network, lambda: nn.LayerNorm(channels), cross=cross))
        self.stack = Stack(blocks, Positions())
        self.proj_out = nn.Linear(channels, channels)

    def initialise(self, generator: torch.Generator) -> None:
        zero(self.proj_out)

    def forward(self, x: Float[Tensor, "B C H W"], prompt: Prompt | None) -> Float[Tensor, "B C H W"]:
        if prompt is None:
            raise ValueError("this UNet attends to a context, and was given none")
        tokens = self.proj_in(pixels(self.norm(x)))
        places = torch.arange(tokens.shape[1], device=x.device)[None]
        memory = self.stack.remember(prompt.tokens)
        return x + picture(self.proj_out(self.stack(tokens, places, memory=memory, context_mask=prompt.mask)), x)


class Resample(nn.Module):
    """Half the size by a strided convolution, or `size` by repeating pixels and a convolution.

    Args:
        channels: C.
        stride: 2 to halve, 1 to double.
        corner: whether zeros are added on the right and below only, as in the code of Ho et al. 2020.
    """

    def __init__(self, channels: int, stride: int, *, corner: bool = False) -> None:
        super().__init__()
        self.corner = corner
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=0 if corner else 1)

    def forward(self, x: Float[Tensor, "B C H W"], size: Sequence[int] | None = None) -> Float[Tensor, "B C h w"]:
        if size is not None:
            x = functional.interpolate(x, size=list(size), mode="nearest")
        return self.conv(functional.pad(x, (0, 1, 0, 1)) if self.corner else x)


class DownLevel(nn.Module):
    """The blocks of one resolution on the way down; every block's output, and the halved image, becomes a skip."""

    def __init__(self, resnets: list[ResidualBlock], attentions: list[nn.Module], resample: Resample | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers = nn.ModuleList([] if resample is None else [resample])

    def forward(self, x: Tensor, condition: Tensor, prompt: Prompt | None, skips: list[Tensor]) -> Tensor:
        for block, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(block(x, condition), prompt)
            skips.append(x)
        for downsampler in self.downsamplers:
            x = downsampler(x)
            skips.append(x)
        return x


class UpLevel(nn.Module):
    """The blocks of one resolution on the way up; every block takes back one skip beside its input."""

    def __init__(self, resnets: list[ResidualBlock], attentions: list[nn.Module], resample: Resample | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.upsamplers = nn.ModuleList([] if resample is None else [resample])

    def forward(self, x: Tensor, condition: Tensor, prompt: Prompt | None, skips: list[Tensor]) -> Tensor:
        for block, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(block(torch.cat([x, skips.pop()], dim=1), condition), prompt)
        for upsampler in self.upsamplers:
            x = upsampler(x, skips[-1].shape[2:])  # the size before halving, also where it was odd
        return x


class Middle(nn.Module):
    """Block, attention, block at the smallest resolution."""

    def __init__(self, resnets: list[ResidualBlock], attention: nn.Module) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList([attention])

    def forward(self, x: Tensor, condition: Tensor, prompt: Prompt | None) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x, condition), prompt), condition)


def pixels(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B HW C"]:
    """The pixels of a picture as tokens, row by row: a view, where it is channels_last."""
    return x.flatten(2).transpose(1, 2)


def picture(tokens: Float[Tensor, "B HW C"], like: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The inverse of `pixels`: a channels_last view, of the height and width of `like`."""
    return tokens.transpose(1, 2).view(like.shape)


def zero(layer: nn.Module) -> None:
    """Weights and bias of a layer whose output is to start at zero (Ho et al. 2020; Goyal et al. 2017, sec. 5.1)."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)
