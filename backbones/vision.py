"""The Transformer over pictures: a picture is cut into patches, and each patch is a token (ViT).

    tokens = [class token, conv(picture)]  + positions;      logits = head(stack(tokens)[class token])

A convolution whose stride is its size is one linear map for every patch. Its layers are those of `backbones.stack`,
pre-norm, with exact gelu and biases. Source: Dosovitskiy et al. 2021, "An image is worth 16x16 words", sec. 3.1; fixed
positions in two dimensions as in He et al. 2022 (masked autoencoders), appendix A.1, and in `backbones.dit`.

Key: B batch, C channels, p side of a patch, T = (H / p)(W / p) patches, row by row, D width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from backbones import feed_forward as networks
from backbones.attention import Attention
from backbones.feed_forward import FeedForwardName
from backbones.masks import FULL, Mask
from backbones.positions import Learned, Positions, Rotary2D, frequencies
from backbones.shape import wrong
from backbones.stack import NORMS, Block, Stack

PlacesName = Literal["learned", "sincos", "rotary", "none"]
Size = int | tuple[int, int]


class Patches(nn.Module):
    """A picture to one vector for each patch of p x p pixels, row by row.

    Args:
        size: height and width of a picture, in pixels; one number where they are equal.
        channels: C.
        patch: p; divides both.
        width: D.

    Raises:
        ValueError: where the patch does not divide the size.
    """

    def __init__(self, size: Size, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        if patch < 1 or self.size[0] % patch or self.size[1] % patch:
            raise ValueError(
                f"patch {patch}: expected a divisor of the picture's sides, {self.size[0]} x {self.size[1]}"
            )
        self.channels, self.patch = channels, patch
        self.grid = (self.size[0] // patch, self.size[1] // patch)  # rows and columns of patches
        self.conv = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B T D"]:
        if x.ndim != 4 or x.shape[1:] != (self.channels, *self.size):
            raise wrong("Patches: x", x, f"[B, {self.channels}, {self.size[0]}, {self.size[1]}]")
        return self.conv(x).flatten(2).transpose(1, 2)

    def places(self, device: torch.device) -> Int64[Tensor, "T 2"]:
        """Row and column of each patch, counted in patches."""
        return torch.cartesian_prod(*(torch.arange(side, device=device) for side in self.grid))

    def join(self, tokens: Float[Tensor, "B T ppC"]) -> Float[Tensor, "B c H W"]:
        """The picture whose patches these are: token features are [p, p, c], channels last."""
        pixels = tokens.reshape(len(tokens), *self.grid, self.patch, self.patch, -1)  # [B, r, q, p, p, c]
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


def sincos(places: Int64[Tensor, "*T 2"], width: int, theta: float = 10_000.0) -> Float[Tensor, "*T D"]:
    """[sin(c w), cos(c w), sin(r w), cos(r w)] of row r and column c, w_i = theta^(-4i/D), i < D/4. float32.

    A place before the first row, such as that of a class token, is no place of the picture, and gets zeros.
    """
    angle = places.flip(-1)[..., None] * frequencies(width // 2, theta, places.device)  # [*T, 2, D/4], column first
    waves = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)
    return torch.where(places[..., :1] < 0, 0.0, waves).float()


class Sincos2D(Positions):
    """`sincos`, added to the embeddings of patches. Positions are [B, T, 2]: row and column.

    Args:
        width: D; a multiple of 4.
        theta: the base of the frequencies. Larger turns more slowly and reaches further.

    Raises:
        ValueError: for a width that four waves do not divide.
    """

    def __init__(self, width: int, theta: float = 10_000.0) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"Sincos2D: sine and cosine of row and column need a width of 4, 8, ...; it is {width}")
        self.width, self.theta = width, theta

    def add(self, x: Float[Tensor, "B T D"], positions: Int64[Tensor, "b T 2"]) -> Float[Tensor, "B T D"]:
        return x + sincos(positions, self.width, self.theta).to(x.dtype)


class ViT(nn.Module):
    """A picture to one number a class.

    It starts as its authors' does: zero head and class token, learned positions N(0, 0.02^2); the patches' map as any
    convolution of this lab, the stack as in `backbones.stack`.

    Args:
        size: height and width of a picture, in pixels; one number where they are equal.
        channels: C.
        patch: p. Smaller sees finer, and costs 1/p^2 tokens, 1/p^4 in attention.
        width: D.
        depth: number of blocks.
        heads: attention heads; divides D.
        classes: K, or None for the features that a head would read, [B, D].
        hidden: width inside the feed-forward network, by default 4 D.
        positions: added and learned, added and fixed (sincos), turned by row and column (rotary), or none. The class
            token has a learned position of its own; under sincos none; under rotary it is turned as a patch at row
            -1 and column -1 would be, so that how it looks at a patch depends on where that patch lies.
        pool: what the head reads: the class token, or the mean of the patches (then there is no class token).
        pooler: width of a tanh layer before the head, as in pre-training; None for no such layer.
        feed_forward: the network of each position.
        eps: of every norm.

    Raises:
        ValueError: where the patch does not divide the size, the heads the width, or a name does not exist.
    """

    def __init__(
        self,
        size: Size,
        channels: int,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        classes: int | None,
        *,
        hidden: int | None = None,
        positions: PlacesName = "learned",
        pool: Literal["class", "mean"] = "class",
        pooler: int | None = None,
        feed_forward: FeedForwardName = "gelu",
        eps: float = 1e-12,
    ) -> None:
        super().__init__()
        self.arguments: dict[str, Any] = {
            **{"size": size, "channels": channels, "patch": patch, "width": width, "depth": depth, "heads": heads},
            **{"classes": classes, "hidden": hidden, "positions": positions, "pool": pool, "pooler": pooler},
            **{"feed_forward": feed_forward, "eps": eps},
        }  # what it takes to make it again, as JSON can hold it
        self.patches = Patches(size, channels, patch, width)
        count = self.patches.grid[0] * self.patches.grid[1] + (pool == "class")
        made: dict[str, Callable[[], Positions]] = {
            "learned": lambda: Learned(count, width),
            "sincos": lambda: Sincos2D(width),
            "rotary": lambda: Rotary2D(width // heads),
            "none": Positions,
        }
        if positions not in made:
            raise ValueError(f"positions {positions!r}: expected one of {', '.join(made)}")
        if pool not in ("class", "mean"):
            raise ValueError(f"pool {pool!r}: expected class or mean")
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if pool == "class" else None
        norm = partial(NORMS["layer"], width, eps)
        layers = [
            Block(Attention(width, heads, bias=True), networks.make(feed_forward, width, hidden, bias=True), norm)
            for _ in range(depth)
        ]
        self.stack = Stack(layers, made[positions](), norm())
        self.pooler = None if pooler is None else nn.Linear(width, pooler)
        self.head = None if classes is None else nn.Linear(width if pooler is None else pooler, classes)

    def initialise(self, generator: torch.Generator) -> None:
        if self.class_token is not None:
            self.class_token.zero_()
        if isinstance(self.stack.positions, Learned):
            self.stack.positions.table.weight.normal_(std=0.02, generator=generator)
        if self.head is not None:
            self.head.weight.zero_()
            self.head.bias.zero_()

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Unnormalised log-probabilities of the classes; without a head the pooled features."""
        tokens = self.tokens(x)
        pooled = tokens.mean(1) if self.class_token is None else tokens[:, 0]  # [B, D]
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(pooled))
        return pooled if self.head is None else self.head(pooled)

    def tokens(self, x: Float[Tensor, "B C H W"], mask: Mask = FULL) -> Float[Tensor, "B T D"]:
        """The hidden state of every token after the last norm: the class token first, if there is one.

        `mask` says which tokens see which.
        """
        patches = self.patches(x)
        places = self.patches.places(x.device)  # [T, 2]
        if self.class_token is not None:
            patches = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
            places = torch.cat([places.new_full((1, 2), -1), places])  # at no place of the picture
        if isinstance(self.stack.positions, Learned):
            places = torch.arange(len(places), device=x.device)
        return self.stack(patches, places[None], mask)
