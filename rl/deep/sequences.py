"""Q-networks that read a history: one look after another goes in, with what is remembered of those before.

    q, state = network(x, state, reset)      x [B, T, ...]  state [B, *m]  reset [B, T]  ->  q [B, T, A]

    Recurrent    u = relu(eye(x));  h' = cell(u, h);  q = V h'              state: that of a GRU or an LSTM
    Windowed     a causal Transformer over the last 1 + L (w - 1) looks     state: those looks but the present one
    Memoryless   u = relu(eye(x));  q = V relu(U u)                         no state: the control

The state is a float tensor, zeros before the first step; `reset` is True where an episode begins, and what is computed
of it never depends on the one before. A whole sequence in one call gives what the same steps give one by one, so an
acting agent passes T = 1 and keeps the state, and a learner passes pieces of episodes with the state of their first
look (Kapturowski et al. 2019, "R2D2", sec. 3).

In the Transformer each of L layers looks at the w last places, itself among them, so that the output depends on the
last 1 + L (w - 1) looks and on nothing else: exactly what the state and the present one hold. Were each layer to look
at the whole state, its output for an old look would change as those before it fall out of the state, and one call over
a sequence would differ from its steps one by one.

Source: Hausknecht & Stone, "Deep recurrent Q-learning for partially observable MDPs", 2015, sec. 3 (convolutions, LSTM,
one linear layer); windows of layers: Beltagy et al. 2020, "Longformer", sec. 3.1.
Departures from R2D2: no dueling head, and neither the last action nor the last reward is an input.

Key: B batch, T steps, A actions, D width, L layers, w window, K = L (w - 1) looks remembered. Held R times
(`backbones.replicas`) all tensors lead with R. `eye` constructs what reads a single look: [N, *shape] -> [N, D].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Bool, Float, Float32, Shaped
from torch import Tensor, nn

from backbones import masks
from backbones.attention import Attention
from backbones.feed_forward import Plain
from backbones.mlp import Linear
from backbones.positions import Rotary
from backbones.recurrent import Recurrent as Cells
from backbones.stack import Block, Stack

Eye = Callable[[], nn.Module]
ALIGN = 16  # places: a whole number of vector registers, so that a matrix's sums do not depend on where it lies


class Recurrent(nn.Module):
    """A look, a cell, a linear layer.

    Args:
        eye: reads a look.
        shape: of one look.
        width: D.
        actions: A.
        kind: of the cell.
        span: steps over which it is to remember, at least 3; see `initialise`.
    """

    def __init__(
        self, eye: Eye, shape: tuple[int, ...], width: int, actions: int, *, kind: Literal["gru", "lstm"], span: int
    ) -> None:
        super().__init__()
        self.shape, self.span, self.eye = shape, max(3, span), eye()
        self.cells, self.head = Cells(kind, width, width), Linear(width, actions)
        self.stacks = getattr(self.eye, "stacks", False)

    def initialise(self, generator: torch.Generator) -> None:
        """The gates that keep get a bias log u, u uniform in 1 ... span - 1: a unit forgets within about 1 + u steps.

        So that there are units for every span of time from the beginning (with bias 0 half is forgotten at each step,
        and no gradient tells of what was 20 steps ago). Source: Tallec & Ollivier, "Can recurrent neural networks warp
        time?", ICLR 2018, eq. 16.
        """
        keep = torch.empty(self.cells.width).uniform_(1, self.span - 1, generator=generator).log()
        bias = self.cells.get_parameter("bias_ih_l0").view(-1, self.cells.width)  # [gates, D]
        bias[1] = keep  # torch's order of gates: r, z, n and i, f, g, o
        if self.cells.kind == "lstm":
            bias[0] = -keep

    def initial(self, batch: int) -> Float32[Tensor, "B P 1 D"]:
        return torch.zeros(batch, 2 if self.cells.kind == "lstm" else 1, 1, self.cells.width)

    def forward(
        self, x: Shaped[Tensor, "*R B T *shape"], state: Float[Tensor, "*R B P 1 D"], reset: Bool[Tensor, "*R B T"]
    ) -> tuple[Float[Tensor, "*R B T A"], Float[Tensor, "*R B P 1 D"]]:
        h, state = self.cells(torch.relu(seen(self.eye, x, len(self.shape))), state, reset)
        return each(self.head, h), state


class Memoryless(nn.Module):
    """A perceptron of one look: what can be had without a memory.

    Args:
        eye: reads a look.
        shape: of one look.
        width: D.
        actions: A.
    """

    def __init__(self, eye: Eye, shape: tuple[int, ...], width: int, actions: int) -> None:
        super().__init__()
        self.shape, self.eye = shape, eye()
        self.hidden, self.head = Linear(width, width), Linear(width, actions)
        self.stacks = getattr(self.eye, "stacks", False)

    def initial(self, batch: int) -> Float32[Tensor, "B 0"]:
        return torch.zeros(batch, 0)

    def forward(
        self, x: Shaped[Tensor, "*R B T *shape"], state: Float[Tensor, "*R B 0"], reset: Bool[Tensor, "*R B T"]
    ) -> tuple[Float[Tensor, "*R B T A"], Float[Tensor, "*R B 0"]]:
        h = torch.relu(each(self.hidden, torch.relu(seen(self.eye, x, len(self.shape)))))
        return each(self.head, h), state


class Windowed(nn.Module):
    """A causal Transformer over the last looks: pre-norm, ReLU, rotary positions (only distances count).

    Args:
        eye: reads a look.
        shape: of one look.
        width: D.
        actions: A.
        window: w, places that a layer sees. More reach further back, and a step costs as much more.
        layers: L.
        heads: of attention; divides D.
    """

    def __init__(
        self,
        eye: Eye,
        shape: tuple[int, ...],
        width: int,
        actions: int,
        *,
        window: int,
        layers: int = 1,
        heads: int = 2,
    ) -> None:
        super().__init__()
        self.shape, self.window, self.past = shape, window, layers * (window - 1)
        self.eye, self.head = eye(), Linear(width, actions)
        blocks = [
            Block(
                Attention(width, heads),
                Plain(width, 2 * width, torch.relu, bias=True),
                lambda: nn.LayerNorm(width),
            )
            for _ in range(layers)
        ]
        self.stack = Stack(blocks, Rotary(width // heads), nn.LayerNorm(width))

    def initial(self, batch: int) -> Float32[Tensor, "B K I"]:
        """I numbers of a look, and 1 where there is one."""
        return torch.zeros(batch, self.past, math.prod(self.shape) + 1)

    def forward(
        self, x: Shaped[Tensor, "B T *shape"], state: Float[Tensor, "B K I"], reset: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T A"], Float[Tensor, "B K I"]]:
        T = x.shape[1]
        state = nn.functional.pad(state, (0, 0, -(self.past + T) % ALIGN, 0))  # places that hold no look
        first = state.shape[1]  # the place of x's first look
        looks = torch.cat([state[..., :-1], numbers(x).flatten(2)], 1)  # [B, N, I - 1]
        # Each look's episode: 0 that of the state, -1 where it holds none; those see nothing but each other.
        episode = torch.cat([state[..., -1].long() - 1, reset.long().cumsum(1)], 1)  # [B, N]
        mask = masks.window(self.window, first + T, device=x.device) & masks.blocks(episode)
        place = torch.arange(first + T, device=x.device)[None]
        h = self.stack(seen(self.eye, looks.view(*looks.shape[:2], *self.shape), len(self.shape)), place, mask)
        there = (episode == episode[:, -1:])[:, first + T - self.past :, None].float()
        kept = torch.cat([looks[:, first + T - self.past :], torch.ones_like(there)], -1) * there
        return each(self.head, h[:, first:]), kept


def numbers(x: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Looks as floats; bytes (0 ... 255) are scaled to [0, 1]."""
    if x.is_floating_point():
        return x
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def seen(eye: nn.Module, x: Shaped[Tensor, "*RBT *shape"], rank: int) -> Float[Tensor, "*RBT D"]:
    """Each look, of `rank` dimensions, by itself."""
    flat = numbers(x).flatten(-rank - 2, -rank - 1)  # [(R,) B T, *shape]
    return eye(flat).view(*x.shape[: x.ndim - rank], -1)


def each(layer: nn.Module, x: Float[Tensor, "*R B T D"]) -> Float[Tensor, "*R B T o"]:
    """A layer on each step of each row."""
    return layer(x.flatten(-3, -2)).view(*x.shape[:-1], -1)


SequenceNetwork = Recurrent | Memoryless | Windowed
