"""The cells of R recurrent networks in one batched product a step, for `backbones.replicas`.

torch's kernels run one network, and `torch.vmap` has no rule for them, so here the cells are written out (the equations
at the top of `backbones.recurrent`), for weights with a leading dimension R or under `torch.vmap`. Resets, whatever
their number, cost nothing. Against R calls of torch's kernels, 8 networks of 64 units on one core: a step is 8 times as
fast for one observation each, 3 times for 32; a GRU's sequences 1 to 2 times; an LSTM's, which torch fuses on the CPU,
half as fast forward, and between equal (16 steps of 32 rows) and half as fast (64 of 8) in training.

Key: R replicas (a leading dimension everywhere, or none), B batch, T steps, I inputs, H width, P parts of the state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Parts = tuple[Tensor, ...]  # of the state: h, and for the LSTM c, [R, B, H] each
Cell = Callable[[Tensor, Parts, Tensor, Tensor], Parts]  # W x + b [R, B, G], state, U^T, b_state -> new state


def rnn(wx: Tensor, state: Parts, u: Tensor, bias: Tensor) -> Parts:
    """(h,) after one step; `bias` is in `wx` already."""
    return (torch.tanh(wx + state[0] @ u),)


def lstm(wx: Tensor, state: Parts, u: Tensor, bias: Tensor) -> Parts:
    """(h, c) after one step; `bias` is in `wx` already."""
    h, c = state
    i, f, g, o = (wx + h @ u).chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(wx: Tensor, state: Parts, u: Tensor, bias: Tensor) -> Parts:
    """(h,) after one step; `bias` counts within the product with r, so it cannot be in `wx`."""
    (h,) = state
    from_input, from_state = wx.chunk(3, dim=-1), (h @ u + bias).chunk(3, dim=-1)
    r, z = (torch.sigmoid(a + b) for a, b in zip(from_input[:2], from_state[:2], strict=True))
    n = torch.tanh(from_input[2] + r * from_state[2])
    return (n + z * (h - n),)


CELLS: dict[str, Cell] = {"rnn": rnn, "lstm": lstm, "gru": gru}


def unroll(
    cell: Cell,
    x: Float[Tensor, "*R B T I"],
    state: Float[Tensor, "*R B P H"],
    reset: Bool[Tensor, "*R B T"] | None,
    w: Float[Tensor, "*R G I"],
    u: Float[Tensor, "*R G H"],
    b: Float[Tensor, "*R G"],
    b_state: Float[Tensor, "*R G"],
) -> tuple[Float[Tensor, "*R B T H"], Float[Tensor, "*R B P H"]]:
    """One layer of R networks over their sequences, one step after the other; G = gates times H."""
    bias = (b if cell is gru else b + b_state).unsqueeze(-2)
    wx = (x.flatten(-3, -2) @ w.mT + bias).view(*x.shape[:-1], -1)  # [R, B, T, G]
    parts, u, b_state, outs = state.unbind(-2), u.mT, b_state.unsqueeze(-2), []
    for t, step in enumerate(wx.unbind(-2)):
        if reset is not None:
            parts = tuple(part.masked_fill(reset[..., t, None], 0) for part in parts)
        parts = cell(step, parts, u, b_state)
        outs.append(parts[0])
    return torch.stack(outs, dim=-2), torch.stack(parts, dim=-2)
