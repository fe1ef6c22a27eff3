"""log p(target) of a softmax over a large vocabulary, without ever holding its logits.

    log p(y | h) = w_y . h - log sum_v exp(w_v . h)
    d/dh = w_y - sum_v p_v w_v,    d/dw_v = (1[v = y] - p_v) h

The logits [N, V] of a batch are usually its largest tensor, and a loss holds them three times over: logits, their
log-softmax, its gradient. Here a chunk of rows is multiplied, judged and forgotten, and multiplied again for the
gradient: a third more work in this layer. Where the weights do not learn, d/dh needs no gradient from above but a
number a row, so it is taken at once and nothing is multiplied again. The idea is Wijmans et al. 2024, "Cut your
losses", sec. 4, in plain tensors.

How large a chunk is depends on where it is multiplied. On a CPU it is small: faster where it stays in the processor's
cache, some 10% slower in bfloat16 where even 64 rows do not (128,000 tokens; docs/notebook.md). Elsewhere small chunks
only cost, so they are as large as memory is likely to bear. Logits that fit into one chunk are left to torch's own
cross-entropy, and nothing is done twice.

Key: N positions, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from backbones.product import able, linear, multiply

CHUNK = 2**22  # logits held at a time on a CPU, or 64 rows where that is more; 16 MiB in float32
WIDE = 2**26  # elsewhere; 256 MiB in float32


def log_probability(
    hidden: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], target: Int64[Tensor, "N"]
) -> Float[Tensor, "N"]:
    """log softmax(weight hidden)[target] in nats, in float32 or finer; differentiable in both (once, where chunked)."""
    if torch.is_autocast_enabled(hidden.device.type):  # as a linear layer would be under it
        kind = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(kind), weight.to(kind)
    with torch.autocast(hidden.device.type, enabled=False):
        if len(_parts(len(hidden), weight)) == 1:
            return _judged(hidden, weight, target)
        return _LogProbability.apply(hidden, weight, target)  # type: ignore[no-untyped-call]  # torch's own


def _parts(positions: int, weight: Tensor) -> list[slice]:
    """The chunks; one of no positions where there are none."""
    rows = max(64, (CHUNK if weight.device.type == "cpu" else WIDE) // len(weight))  # with fewer the products slow down
    return [slice(first, first + rows) for first in range(0, max(positions, 1), rows)]


def _logits(hidden: Tensor, weight: Tensor) -> Tensor:
    logits = linear(hidden, weight)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _judged(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return -functional.cross_entropy(_logits(hidden, weight), target, reduction="none")


class _LogProbability(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        ctx.parts = _parts(len(hidden), weight)
        of_hidden, of_weight, _ = ctx.needs_input_grad
        ctx.at_once = of_hidden and not of_weight
        if not ctx.at_once:
            ctx.save_for_backward(hidden, weight, target)
            return torch.cat([_judged(hidden[part], weight, target[part]) for part in ctx.parts])
        found, slope = [], torch.empty_like(hidden)
        for part in ctx.parts:
            logits = _logits(hidden[part], weight)
            found.append(-functional.cross_entropy(logits, target[part], reduction="none"))
            slope[part] = -_product(_away(logits, target[part]).to(hidden.dtype), weight)
        ctx.save_for_backward(slope)
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if ctx.at_once:
            (slope,) = ctx.saved_tensors
            return (slope * gradient[:, None]).to(slope.dtype), None, None
        hidden, weight, target = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        d_weight = torch.zeros_like(weight, dtype=gradient.dtype)  # summed over chunks
        for part in ctx.parts:
            scale = -gradient[part, None]  # [n, 1], on the small tensors rather than on p
            p = _away(_logits(hidden[part], weight), target[part]).to(hidden.dtype)
            if d_hidden is not None:
                d_hidden[part] = _product(p, weight) * scale
            scaled = hidden[part] * scale
            if p.dtype == d_weight.dtype:
                d_weight.addmm_(p.t(), scaled)
            else:
                d_weight += p.t() @ scaled.to(hidden.dtype)
        return d_hidden, d_weight.to(weight.dtype), None


def _away(logits: Float[Tensor, "n V"], target: Int64[Tensor, "n"]) -> Float[Tensor, "n V"]:
    """softmax(logits) - 1[v = target], in the place of the logits."""
    torch.softmax(logits, dim=-1, out=logits)
    return logits.scatter_add_(1, target[:, None], logits.new_full((len(logits), 1), -1.0))


def _product(p: Float[Tensor, "n V"], weight: Float[Tensor, "V D"]) -> Float[Tensor, "n D"]:
    return multiply(p, weight.t()) if able(weight) else p @ weight
