"""log p(target) of a softmax over a large vocabulary, without ever holding its logits.

    log p(y | h) = w_y . h - log sum_v exp(w_v . h)
    d/dh = w_y - sum_v p_v w_v,    d/dw_v = (1[v = y] - p_v) h

The logits [N, V] of a batch are usually its largest tensor, and a loss holds them three times over: logits, their
log-softmax, its gradient. Here a chunk of rows is multiplied, judged and forgotten, and multiplied again for the
gradient: a third more work in this layer. Where the weights do not learn, d/dh needs no gradient from above but a
number a row, so it is taken at once and nothing is multiplied again. The idea is Wijmans et al. 2024, "Cut your
losses", sec. 4, in plain tensors.

How large a chunk is depends on where it is multiplied. On a CPU it is small, as it is faster where it stays in the
processor's cache (docs/notebook.md). Elsewhere small chunks only cost, so they are as large as memory is likely to
bear. Logits that fit into one chunk are left to torch's own log-softmax, and nothing is done twice.

Key: N positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.product import able, linear, multiply

CHUNK = 2**22  # logits of a chunk on a CPU, unless LEAST asks for more; 16 MiB in float32
LEAST = 64  # rows of a chunk, and twice as many of a narrow type: with fewer the products slow down
WIDE = 2**26  # elsewhere; 256 MiB in float32
WORDS = 2**13  # whose gradients are widened at a time


def log_probability(
    hidden: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], target: Int64[Tensor, "N"]
) -> Float[Tensor, "N"]:
    """log softmax(weight hidden)[target] in nats, in float32 or finer; differentiable in both (once, where chunked)."""
    kind = weight.dtype
    if torch.is_autocast_enabled(hidden.device.type) and kind != torch.float64:  # as a linear layer under it
        kind = torch.get_autocast_dtype(hidden.device.type)
        hidden = hidden.to(kind)
    with torch.autocast(hidden.device.type, enabled=False):
        if len(_parts(len(hidden), weight, kind)) == 1:
            return _logits(hidden, weight.to(kind)).log_softmax(-1).gather(1, target[:, None])[:, 0]
        return _LogProbability.apply(hidden, weight, target, kind)  # type: ignore[no-untyped-call]  # torch's own


def _parts(positions: int, weight: Tensor, kind: torch.dtype) -> list[slice]:
    """The chunks, multiplied in a type; one of no positions where there are none."""
    least = LEAST if kind.itemsize >= 4 else 2 * LEAST
    rows = max(least, (CHUNK if weight.device.type == "cpu" else WIDE) // len(weight))
    return [slice(first, first + rows) for first in range(0, max(positions, 1), rows)]


class _Room(NamedTuple):
    """Where every chunk of a narrow type puts its logits in turn. Tensors of their own would be given back and asked
    for again and again, and the holes between them grow to gigabytes (docs/notebook.md).
    """

    narrow: Float[Tensor, "n V"]
    wide: Float[Tensor, "n V"]


def _room(part: slice, weight: Tensor) -> _Room | None:
    """None where logits are of the products' own type."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    if wide == weight.dtype:
        return None
    shape = part.stop - part.start, len(weight)
    return _Room(weight.new_empty(shape), weight.new_empty(shape, dtype=wide))


def _logits(hidden: Tensor, weight: Tensor, room: _Room | None = None) -> Tensor:
    """In float32 or finer."""
    if room is None:
        logits = linear(hidden, weight)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
    narrow, wide = (x[: len(hidden)] for x in room)
    return wide.copy_(torch.mm(hidden, weight.t(), out=narrow))


class _LogProbability(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor, kind: torch.dtype) -> Tensor:
        ctx.parts, ctx.learned = _parts(len(hidden), weight, kind), weight.dtype
        of_hidden, of_weight, *_ = ctx.needs_input_grad
        ctx.at_once = of_hidden and not of_weight
        weight = weight.to(kind)
        found, slope, room = [], torch.empty_like(hidden) if ctx.at_once else None, _room(ctx.parts[0], weight)
        for part in ctx.parts:
            logits = _logits(hidden[part], weight, room)
            told = torch.log_softmax(logits, dim=-1, out=logits)
            found.append(told.gather(1, target[part, None])[:, 0])
            if slope is not None:
                slope[part] = -_product(_away(told.exp_(), target[part], room), weight)
            del logits, told  # before the next are made
        if slope is None:
            ctx.save_for_backward(hidden, weight, target)
        else:
            ctx.save_for_backward(slope)
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        if ctx.at_once:
            (slope,) = ctx.saved_tensors
            return (slope * gradient[:, None]).to(slope.dtype), None, None, None
        with torch.autocast(gradient.device.type, enabled=False):  # wherever it is asked for, as forward multiplied
            return *_LogProbability._slopes(ctx, gradient), None, None

    @staticmethod
    def _slopes(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        hidden, weight, target = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=gradient.dtype)  # summed over chunks
        room = _room(ctx.parts[0], weight)
        for part in ctx.parts:
            scale = -gradient[part, None]  # [n, 1], on the small tensors rather than on p
            logits = _logits(hidden[part], weight, room)
            p = _away(torch.softmax(logits, dim=-1, out=logits), target[part], room)
            if d_hidden is not None:
                d_hidden[part] = _product(p, weight) * scale
            _add_product(d_weight, p, hidden[part] * scale)
            del logits, p  # before the next are made
        return d_hidden, d_weight.to(ctx.learned)


def _away(p: Float[Tensor, "n V"], target: Int64[Tensor, "n"], room: _Room | None) -> Float[Tensor, "n V"]:
    """p - 1[v = target] in the products' type, in the place of p."""
    p.scatter_add_(1, target[:, None], p.new_full((len(p), 1), -1.0))
    return p if room is None else room.narrow[: len(p)].copy_(p)


def _product(p: Float[Tensor, "n V"], weight: Float[Tensor, "V D"]) -> Float[Tensor, "n D"]:
    return multiply(p, weight.t()) if able(weight) else p @ weight


def _add_product(total: Float[Tensor, "V D"], p: Float[Tensor, "n V"], hidden: Float[Tensor, "n D"]) -> None:
    """total += p^T hidden; where p is of a narrower type, some words at a time, as each sum is copied to be widened."""
    if p.dtype == total.dtype:
        total.addmm_(p.t(), hidden)
        return
    hidden = hidden.to(p.dtype)
    for first in range(0, len(total), WORDS):
        part = slice(first, first + WORDS)
        total[part] += p[:, part].t() @ hidden
