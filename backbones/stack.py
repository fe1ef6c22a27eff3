"""The Transformer's body: attention mixes positions, a feed-forward network mixes features, and each adds to what was.

    pre    x <- x + attention(norm(x));    x <- x + feed_forward(norm(x))        Xiong et al. 2020, fig. 1b
    post   x <- norm(x + attention(x));    x <- norm(x + feed_forward(x))        Vaswani et al. 2017, sec. 3.1

A block may also attend to a context between the two (an encoder-decoder), and be modulated by a condition: shift,
scale and gate of both sublayers are then a function of it, zero at first, so that the block starts as the identity
(adaLN-zero: Peebles & Xie 2023, sec. 3.2). One `Stack` of blocks is the decoder of a language model, the encoder of a
translator, a vision Transformer and a diffusion Transformer.

Weights start as N(0, 2 / (5 D)) (Nguyen & Salazar 2019, "Transformers without tears": SmallInit), and the outputs of
each block that add to the residual stream are divided by sqrt(n L), n of them a block, L the depth, so that its
variance does not grow with depth (GPT-2: Radford et al. 2019, sec. 2.3); biases are 0, norms 1. At GPT-2's width of
768 the deviation is 0.023 to GPT-2's own 0.02. At the widths of this lab a fixed 0.02 would be several times too
small: with it a model of D = 64 needed some 1.7 times the updates to the same loss on mazes.

Key: B batch, T positions, D width, C features of the condition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.attention import Attention, Cache
from backbones.masks import FULL, Mask
from backbones.mixer import Keeper, Mixer
from backbones.positions import Positions, Turn
from backbones.shape import wrong

Memory = tuple[Float[Tensor, "B G S d"], Float[Tensor, "B G S d"]]  # keys and values of a context, for one layer
Change = tuple[Tensor, Tensor, Tensor]  # shift, scale and gate, [B, 1, D] each

NORMS: dict[str, Callable[[int, float], nn.Module]] = {
    "rms": lambda width, eps: nn.RMSNorm(width, eps=eps),  # Zhang & Sennrich 2019
    "layer": lambda width, eps: nn.LayerNorm(width, eps=eps),  # Ba et al. 2016
    "plain": lambda width, eps: nn.LayerNorm(width, eps=eps, elementwise_affine=False),  # where a condition modulates
}
NormName = Literal["rms", "layer", "plain"]
Order = Literal["pre", "post"]
LAST = ("output", "down")  # the layers that add to the stream, by their names in attention, unit and network


def normalisation(kind: NormName, width: int, eps: float) -> nn.Module:
    """The norm of that name. Raises ValueError for one that does not exist."""
    if kind not in NORMS:
        raise ValueError(f"norm {kind!r}: expected one of {', '.join(NORMS)}")
    return NORMS[kind](width, eps)


@dataclass(frozen=True)
class Pass:
    """What all layers of one forward pass share.

    Attributes:
        mask: which positions see which.
        turn: what queries and keys are turned by (`positions.rotate`).
        bias: what is added to the logits of attention, broadcast to [B, H, T, S].
        positions: [B, T], the slots of the cache that are written.
        context_mask: which positions of the context are seen.
        condition: [B, C], what modulates the blocks.
    """

    mask: Mask = FULL
    turn: Turn | None = None
    bias: Tensor | None = None
    positions: Tensor | None = None
    context_mask: Mask = FULL
    condition: Tensor | None = None


class Modulation(nn.Module):
    """condition -> (shift, scale, gate) of each of two sublayers: linear(silu(condition)), which starts at zero."""

    def __init__(self, condition: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(condition, 6 * width)

    def initialise(self, generator: torch.Generator) -> None:
        self.linear.weight.zero_()
        self.linear.bias.zero_()

    def forward(self, condition: Float[Tensor, "B C"]) -> tuple[Change, Change]:
        parts = self.linear(functional.silu(condition))[:, None].chunk(6, dim=-1)  # 6 x [B, 1, D]
        return (parts[0], parts[1], parts[2]), (parts[3], parts[4], parts[5])


class Block(nn.Module):
    """One layer.

    Args:
        attention: mixes positions: `attention.Attention`, or another kind of the same face (`mixer.Mixer`).
        feed_forward: mixes features: `feed_forward.Plain`, `SwiGLU`, `moe.MoE`.
        norm: makes one normalisation.
        order: where it stands, before each sublayer or after the sum.
        cross: attends to a context, or None.
        modulation: of both sublayers by a condition, or None. Needs order "pre".

    Raises:
        ValueError: for another order, or a modulation after the sum.
    """

    def __init__(
        self,
        attention: Mixer,
        feed_forward: nn.Module,
        norm: Callable[[], nn.Module],
        *,
        order: Order = "pre",
        cross: Attention | None = None,
        modulation: Modulation | None = None,
    ) -> None:
        super().__init__()
        if order not in get_args(Order):
            raise ValueError(f"order {order!r}: expected one of {', '.join(get_args(Order))}")
        if order == "post" and modulation is not None:
            raise ValueError("Block: order 'post' with a modulation; expected 'pre', whose norms are modulated")
        self.order = order
        self.attention, self.attention_norm = attention, norm()
        self.cross, self.cross_norm = cross, norm() if cross is not None else None
        self.feed_forward, self.feed_forward_norm = feed_forward, norm()
        self.modulation = modulation

    def forward(
        self, x: Float[Tensor, "B T D"], shared: Pass, cache: Cache | None = None, memory: Memory | None = None
    ) -> Float[Tensor, "B T D"]:
        first: Change | None = None
        second: Change | None = None
        if self.modulation is not None:
            if shared.condition is None:
                raise ValueError("Block: it is modulated by a condition, and was given none")
            first, second = self.modulation(shared.condition)
        s = shared
        x = self._add(
            x, self.attention_norm, lambda y: self.attention(y, s.mask, s.turn, s.bias, cache, s.positions), first
        )
        if self.cross is not None and self.cross_norm is not None:
            cross, read = self.cross, memory
            if read is None:
                raise ValueError("Block: it attends to a context, and was given none (see Stack.remember)")
            x = self._add(x, self.cross_norm, lambda y: cross.cross(y, read, s.context_mask))
        return self._add(x, self.feed_forward_norm, self.feed_forward, second)

    def _add(
        self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor], change: Change | None = None
    ) -> Tensor:
        if self.order == "post":
            return norm(x + sublayer(x))
        if change is None:
            return x + sublayer(norm(x))
        shift, scale, gate = change
        return x + gate * sublayer(torch.addcmul(shift, norm(x), 1 + scale))


class Stack(nn.Module):
    """Blocks, one after another, and the norm that a pre-norm stream needs at its end.

    Args:
        blocks: the layers.
        positions: how positions are written.
        norm: the last one; by default none, as after post-norm blocks.
    """

    def __init__(self, blocks: Sequence[Block], positions: Positions, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.positions = positions
        self.norm = nn.Identity() if norm is None else norm

    @property
    def layers(self) -> list[Block]:
        """The blocks, in order."""
        return cast("list[Block]", list(self.blocks))

    def initialise(self, generator: torch.Generator) -> None:
        """The rule at the top of the file; norms and their shifts keep 1 and 0, modulation 0."""
        for block in self.layers:
            branches = [cast(nn.Module, block.attention), block.feed_forward]
            branches += [block.cross] if block.cross is not None else []
            deviation = math.sqrt(2 / (5 * block.attention.width))
            for branch in branches:
                for name, module in branch.named_modules():
                    if isinstance(module, nn.Linear):
                        module.weight.normal_(std=deviation, generator=generator)
                        if module.bias is not None:
                            module.bias.zero_()
                        if name.rpartition(".")[2] in LAST:
                            module.weight.div_(math.sqrt(len(branches) * len(self.blocks)))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Int64[Tensor, "b T *axes"],
        mask: Mask = FULL,
        *,
        cache: Sequence[Cache] | None = None,
        memory: Sequence[Memory] | None = None,
        context_mask: Mask = FULL,
        condition: Float[Tensor, "B C"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """x, embedded, through all blocks.

        Args:
            x: one vector for each position.
            positions: of each; [B, T], or [B, T, 2] for places in a picture.
            mask: which positions see which. With a cache: which slots.
            cache: one a layer; x is stored at its positions, and sees what the mask allows of all slots.
            memory: from `remember`: what each block that attends to a context looks at.
            context_mask: which positions of the context are seen.
            condition: what modulates the blocks.

        Raises:
            ShapeError: where x is of another rank or width, or the positions are not those of x.
            ValueError: where blocks need a memory or a condition that is not given.
        """
        if not isinstance(mask, Mask):
            raise TypeError(f"Stack: mask is a {type(mask).__name__}, expected a Mask, as backbones.masks makes them")
        if x.ndim != 3 or (self.layers and x.shape[-1] != self.layers[0].attention.width):
            raise wrong("Stack: x", x, f"[B, T, {self.layers[0].attention.width}]")
        if positions.ndim < 2 or positions.shape[0] not in (1, x.shape[0]) or positions.shape[1] != x.shape[1]:
            raise wrong("Stack: positions", positions, f"[{len(x)} or 1, {x.shape[1]}, ...]")
        x = self.positions.add(x, positions)
        keys = positions if cache is None else torch.arange(cache[0].keys.shape[2], device=x.device)[None]
        shared = Pass(
            mask=mask,
            turn=self.positions.turn(positions, x.dtype),
            bias=self.positions.bias(positions, keys, x.dtype),
            positions=positions,
            context_mask=context_mask,
            condition=condition,
        )
        looked_at = iter(memory or ())
        for layer, block in enumerate(self.layers):
            x = block(x, shared, cache and cache[layer], None if block.cross is None else next(looked_at, None))
        return self.norm(x)

    def remember(self, context: Float[Tensor, "B S C"]) -> list[Memory]:
        """Keys and values that each block's cross-attention makes of a context: computed once for all queries."""
        return [block.cross.read(context) for block in self.layers if block.cross is not None]

    def cache(self, batch: int, length: int, like: Tensor | None = None) -> list[Cache]:
        """An empty cache for `batch` sequences of at most `length` positions, one entry a layer.

        Args:
            batch: B.
            length: S, its slots.
            like: a tensor of its type and device, by default the first of the weights. Layers that were packed for
                generation have none to tell by.

        Raises:
            ValueError: for a kind of attention that keeps no keys and values.
        """
        like = next(self.parameters()) if like is None else like
        made = []
        for a in (block.attention for block in self.layers):
            if not isinstance(a, Keeper):
                raise ValueError(f"Stack.cache: {type(a).__name__} keeps no keys and values, expected a kind that does")
            shape = (batch, a.groups, length, a.head_width)
            made.append(Cache(like.new_zeros(shape), like.new_zeros(shape)))
        return made
