"""Attention whose cost is linear in the length: keys and values are summed up before any query looks at them.

    elu       out_t = phi(q_t) . sum_s phi(k_s) v_s / (phi(q_t) . sum_s phi(k_s)),  phi(x) = elu(x) + 1
              Katharopoulos et al. 2020, "Transformers are RNNs", eqs. 5-7; causal: eqs. 8-12 and 16-20
    softmax   out_t = softmax_f(q_t) . sum_s softmax_s(k_s) v_s: over the features of q, over the positions of k
              Shen et al. 2021, "Efficient Attention", eq. 3. They give no causal form; here softmax_s then runs over
              the positions up to t

Causal attention is computed in chunks: inside a chunk pair by pair, from all that came before by one running sum. It
equals the recurrence `step`, whose memory is that sum alone, whatever the length.

A running softmax needs care: exp(k) overflows, and may not be tamed by a maximum over keys that are still to come.
So each sum is kept relative to the largest key so far, `top`, and shrunk where that grows. No exponent is above 0.

Key: B batch, H heads, T positions, d width of a head's queries and keys, e of its values, N chunks of C positions.
Sums carry one value more, a 1: the same sum is then numerator and denominator. A query that may see no key gets zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from backbones.attention import Cache
from backbones.masks import FULL, Mask
from backbones.mixer import refuse
from backbones.positions import Turn
from backbones.shape import wrong

Seen = Bool[Tensor, "b T"] | None
State = tuple[Tensor, ...]  # what generation remembers of all that came before


def phi(x: Float[Tensor, "*B d"]) -> Float[Tensor, "*B d"]:
    """elu(x) + 1, which is exp(x) below 0: written so, it never rounds to 0 where elu(x) rounds to -1."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def quotient(sums: Float[Tensor, "*B f"]) -> Float[Tensor, "*B e"]:
    """Numerator over denominator, its last entry; zeros where nothing was summed."""
    below = sums[..., -1:]
    return sums[..., :-1] / torch.where(below > 0, below, 1)


def elu_full(
    q: Float[Tensor, "B H T d"], k: Float[Tensor, "B H S d"], v: Float[Tensor, "B H S e"], seen: Seen = None
) -> Float[Tensor, "B H T e"]:
    """phi(q) (phi(k)^T v), normalised; keys that are not `seen` count nothing."""
    return quotient(phi(q) @ (features(k, seen).mT @ ones(v)))


def softmax_full(
    q: Float[Tensor, "B H T d"], k: Float[Tensor, "B H S d"], v: Float[Tensor, "B H S e"], seen: Seen = None
) -> Float[Tensor, "B H T e"]:
    """softmax(q) (softmax(k)^T v), over features and over positions."""
    if seen is not None:
        hidden = ~seen[:, None, :, None]
        k = k.masked_fill(hidden, torch.finfo(k.dtype).min).softmax(dim=-2).masked_fill(hidden, 0)
    else:
        k = k.softmax(dim=-2)
    return q.softmax(dim=-1) @ (k.mT @ v)


def elu_causal(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B H T d"],
    v: Float[Tensor, "B H T e"],
    seen: Seen = None,
    chunk: int = 64,
) -> Float[Tensor, "B H T e"]:
    """Each position sees itself and the past. Cost T C (d + e) + T d e: any `chunk` gives the same numbers."""
    length = q.shape[2]
    q, k, v = (chunked(x, chunk) for x in (phi(q), features(k, seen), ones(v)))  # [B, H, N, C, *]; padded keys are 0
    before = k.mT @ v  # [B, H, N, d, e + 1], the sum of one chunk, then of all chunks before it
    before = functional.pad(before[:, :, :-1].cumsum(dim=2), (0, 0, 0, 0, 1, 0))
    inside = (q @ k.mT).tril()  # [B, H, N, C, C]
    return quotient(inside @ v + q @ before).flatten(2, 3)[:, :, :length]


def softmax_causal(
    q: Float[Tensor, "B H T d"],
    k: Float[Tensor, "B H T d"],
    v: Float[Tensor, "B H T e"],
    seen: Seen = None,
    chunk: int = 16,
) -> Float[Tensor, "B H T e"]:
    """Each position sees itself and the past. Memory T C d for the exponents inside chunks: keep `chunk` small.

    `top` is a constant to the gradient: it stands above and below each fraction, and cancels.
    """
    length, lowest = q.shape[2], torch.finfo(k.dtype).min
    if seen is not None:
        k = k.masked_fill(~seen[:, None, :, None], -torch.inf)
    q, v = chunked(q.softmax(dim=-1), chunk), chunked(ones(v), chunk)
    k = chunked(k, chunk, -torch.inf)  # [B, H, N, C, d]
    top = (
        k.detach().flatten(2, 3).cummax(dim=2).values.clamp(min=lowest).view_as(k)
    )  # never -inf: inf - inf is no number
    last = top[:, :, :, -1]  # [B, H, N, d]
    before = functional.pad(last[:, :, :-1], (0, 0, 1, 0), value=lowest)  # of all chunks before
    added = (k - last[:, :, :, None]).exp().mT @ v  # [B, H, N, d, e + 1]
    kept = (before - last).exp()[..., None]
    total, totals = torch.zeros_like(added[:, :, 0]), []
    for add, keep in zip(added.unbind(2), kept.unbind(2), strict=True):
        totals.append(total)
        total = keep * total + add
    place = torch.arange(k.shape[3], device=k.device)
    past = (place[:, None] >= place)[:, :, None]  # [C, C, 1]
    pairs = (k[:, :, :, None] - top[:, :, :, :, None]).masked_fill_(~past, -torch.inf).exp_()  # [B, H, N, C, C, d]
    shrunk = (before[:, :, :, None] - top).exp()  # [B, H, N, C, d]
    earlier = torch.stack(totals, dim=2)  # [B, H, N, d, e + 1]
    below = pairs.sum(dim=4) + shrunk * earlier[:, :, :, None, :, -1]  # [B, H, N, C, d]
    looks = q / torch.where(below > 0, below, 1)
    inside = (pairs @ looks[..., None])[..., 0]  # [B, H, N, C, C]: the weight of each value
    return (inside @ v + (looks * shrunk) @ earlier)[..., :-1].flatten(2, 3)[:, :, :length]


def elu_step(
    q: Float[Tensor, "B H d"], k: Float[Tensor, "B H d"], v: Float[Tensor, "B H e"], state: State
) -> tuple[Float[Tensor, "B H e"], State]:
    """One position of `elu_causal`; the state is the sum, [B, H, d, e + 1]."""
    total = state[0] + phi(k)[..., None] * ones(v)[..., None, :]
    return quotient((phi(q)[..., None, :] @ total)[..., 0, :]), (total,)


def softmax_step(
    q: Float[Tensor, "B H d"], k: Float[Tensor, "B H d"], v: Float[Tensor, "B H e"], state: State
) -> tuple[Float[Tensor, "B H e"], State]:
    """One position of `softmax_causal`; the state is the sum, [B, H, d, e + 1], and the largest keys, [B, H, d]."""
    total, before = state
    top = torch.maximum(before, k.detach())
    total = (before - top).exp()[..., None] * total + (k - top).exp()[..., None] * ones(v)[..., None, :]
    return (q.softmax(dim=-1)[..., None, :] @ quotient(total))[..., 0, :], (total, top)


def features(k: Float[Tensor, "B H S d"], seen: Seen) -> Float[Tensor, "B H S d"]:
    """phi(k), and 0 where a key is not seen."""
    return phi(k) if seen is None else phi(k).masked_fill(~seen[:, None, :, None], 0)


def ones(v: Float[Tensor, "*B e"]) -> Float[Tensor, "*B f"]:
    """v with a 1 behind it."""
    return functional.pad(v, (0, 1), value=1.0)


def chunked(x: Float[Tensor, "B H T d"], size: int, fill: float = 0.0) -> Float[Tensor, "B H N C d"]:
    """Cut into chunks of `size`, the last one filled up."""
    filled = functional.pad(x, (0, 0, 0, -x.shape[2] % size), value=fill)
    return filled.view(*x.shape[:2], -1, size, x.shape[-1])


@dataclass(frozen=True)
class Kind:
    """The three forms of one equation."""

    full: Callable[[Tensor, Tensor, Tensor, Seen], Tensor]
    causal: Callable[[Tensor, Tensor, Tensor, Seen], Tensor]
    step: Callable[[Tensor, Tensor, Tensor, State], tuple[Tensor, State]]


KINDS = {"elu": Kind(elu_full, elu_causal, elu_step), "softmax": Kind(softmax_full, softmax_causal, softmax_step)}


class LinearAttention(nn.Module):
    """Multi-head linear attention, with the projections of `attention.Attention` under the same names.

    Args:
        width: D.
        heads: H; divides D.
        kind: "elu" or "softmax", the equations above.
        bias: whether the projections add one.

    Raises:
        ValueError: for heads that do not divide the width, or a kind that does not exist.
    """

    def __init__(self, width: int, heads: int, kind: Literal["elu", "softmax"] = "elu", *, bias: bool = False) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width}, heads {heads}: the heads must divide the width")
        if kind not in KINDS:
            raise ValueError(f"linear attention of kind {kind!r}: expected one of {', '.join(KINDS)}")
        self.width, self.heads, self.kind = width, heads, kind
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask = FULL,
        turn: Turn | None = None,
        bias: Float[Tensor, "b h T S"] | None = None,
        cache: Cache | None = None,
        positions: Int64[Tensor, "b T *axes"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Attend from x to x; `positions`, as all that `stack.Block` hands on, may be given, and are not looked at.

        Raises:
            ShapeError: for another width, or a mask of other keys.
            ValueError: for a mask that tells queries or heads apart, other than by `causal`; for a turn (what is
                turned is positive no more, and a denominator could be 0), a bias or a cache (see `step`).
        """
        refuse("linear attention", turn=turn, bias=bias, cache=cache)
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise wrong("LinearAttention: x", x, f"[B, T, {self.width}]")
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in self._projections)
        kind, seen = KINDS[self.kind], mask.keys("linear attention", *x.shape[:2])
        out = (kind.causal if mask.causal else kind.full)(q, k, v, seen)  # [B, H, T, d]
        return self.output(out.transpose(1, 2).flatten(-2))

    def start(self, batch: int) -> State:
        """What `step` remembers before the first position: [B, H, d, d + 1], and for "softmax" also [B, H, d].

        It is float32 or finer, whatever the weights are: a sum in bfloat16 stands still once it is 256 times as large
        as what is added.
        """
        width, weight = self.width // self.heads, self.key.weight
        kind = torch.promote_types(weight.dtype, torch.float32)
        total = weight.new_zeros(batch, self.heads, width, width + 1, dtype=kind)
        if self.kind == "elu":
            return (total,)
        return total, total.new_full((batch, self.heads, width), torch.finfo(total.dtype).min)

    def step(self, x: Float[Tensor, "B D"], state: State) -> tuple[Float[Tensor, "B D"], State]:
        """One position of causal attention, and the state after it: its cost does not know how many came before."""
        if x.ndim != 2 or x.shape[-1] != self.width:
            raise wrong("LinearAttention: x of one step", x, f"[B, {self.width}]")
        q, k, v = (layer(x).unflatten(-1, (self.heads, -1)) for layer in self._projections)
        total = state[0]
        out, state = KINDS[self.kind].step(q.to(total.dtype), k.to(total.dtype), v.to(total.dtype), state)
        return self.output(out.flatten(-2).to(q.dtype)), state

    @property
    def _projections(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        return self.query, self.key, self.value
