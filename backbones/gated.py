"""The gated attention unit: attention and feed-forward network in one layer of one head, and FLASH, its linear form.

    u = silu(x W_u);  v = silu(x W_v);  z = silu(x W_z)
    o = (u * (a v)) W_o
    a_ts = relu(q_t . k_s / sqrt(s) + b_ts)^2 / n_t             q and k are looks at z: each has its scale and offset

    FLASH:  a v  inside the chunk                               b and n_t are then those of the chunk
            + q'_t . sum_s k'_s v_s / (sqrt(s) n'_t)            over all chunks; causal, over those before t's

Source: Hua, Dai, Liu & Le 2022, "Transformer Quality in Linear Time", secs. 2 and 3, eqs. 3-8. As in their code
(appendix), queries and keys are turned by rotary positions, and b_ts = (R_t a) . (R_s c) by two learned vectors, so
that it depends on t - s alone.

Three departures. Their code divides q . k by the length of the batch; here weights are divided by n_t, the number of
keys that t may see (n'_t: in the linear sum), so that neither padding nor what is still to come changes an output. And
q . k is divided by sqrt(s), as in all our attention. And scales begin at 1, not near 0, so that a layer attends from
its first step; offsets and b's vectors begin as theirs.

Key: B batch, T positions, D width, e width of u and v, s width of z, N chunks of C positions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor, nn
from torch.nn import functional

from backbones.attention import Cache
from backbones.feed_forward import relu2
from backbones.masks import FULL, Mask
from backbones.mixer import refuse
from backbones.positions import Rotary, Turn, rotate
from backbones.shape import wrong


class Gate(nn.Module):
    """What both forms share: x -> u, v and the looks at z; and the way back.

    Args:
        width: D.
        hidden: e.
        shared: s; even.
        looks: how many queries and keys are made of z.
    """

    def __init__(self, width: int, hidden: int, shared: int, looks: int) -> None:
        super().__init__()
        self.width, self.sizes = width, [hidden, hidden, shared]
        self.rotary = Rotary(shared)
        self.up = nn.Linear(width, 2 * hidden + shared)
        self.down = nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.empty(looks, 1, shared))
        self.offset = nn.Parameter(torch.empty(looks, 1, shared))
        self.bias = nn.Parameter(torch.empty(2, shared))  # a and c

    def initialise(self, generator: torch.Generator) -> None:
        """Scales 1, offsets 0, the vectors of the bias N(0, 0.02^2)."""
        self.scale.fill_(1)
        self.offset.zero_()
        self.bias.normal_(std=0.02, generator=generator)

    def forward(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T e"], Float[Tensor, "B T e"], Float[Tensor, "B looks T s"]]:
        """u, v, and the looks at z, turned, divided by the fourth root of s, so that a product has its square root."""
        if x.ndim != 3 or x.shape[-1] != self.width:
            raise wrong("gated attention: x", x, f"[B, T, {self.width}]")
        u, v, z = torch.split(functional.silu(self.up(x)), self.sizes, dim=-1)
        place = torch.arange(x.shape[1], device=x.device)[None]
        looks = (z[:, None] * self.scale + self.offset) / self.sizes[-1] ** 0.25  # [B, looks, T, s]
        return u, v, rotate(looks, *self.rotary.turn(place, x.dtype))

    def distances(self, length: int) -> Float[Tensor, "T T"]:
        """b of `length` positions."""
        place = torch.arange(length, device=self.bias.device)[None]
        cos, sin = self.rotary.turn(place, self.bias.dtype)
        a, c = rotate(self.bias[None, :, None].expand(1, 2, length, -1), cos, sin)[0]  # [T, s] each
        return a @ c.mT


class GatedAttention(nn.Module):
    """The unit with all pairs of positions: cost T^2. Two units (some 6 D^2 weights each) stand for an attention layer
    (4 D^2) and a feed-forward network (8 D^2).

    Args:
        width: D.
        hidden: e, by default 2 D, the paper's.
        shared: s. Larger tells more positions apart.
    """

    def __init__(self, width: int, hidden: int | None = None, shared: int = 128) -> None:
        super().__init__()
        self.width = width
        self.gate = Gate(width, hidden or 2 * width, shared, looks=2)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask = FULL,
        turn: Turn | None = None,
        bias: Float[Tensor, "b h T S"] | None = None,
        cache: Cache | None = None,
        positions: Int64[Tensor, "b T *axes"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """o; `positions`, as all that `stack.Block` hands on, may be given: the unit writes its own, place by place.

        Raises:
            ShapeError: for another width, or a mask of other queries or keys.
            ValueError: for a mask that differs by head, since there is one; for a turn, a bias or a cache.
        """
        refuse("gated attention", turn=turn, bias=bias, cache=cache)
        u, v, looks = self.gate(x)
        length = x.shape[1]
        seen = mask.single("gated attention", length, length, x.device)
        seen = torch.ones(1, length, length, dtype=torch.bool, device=x.device) if seen is None else seen
        return self.gate.down(u * pairs(looks[:, 0], looks[:, 1], v, self.gate.distances(length), seen))


class MixedChunkAttention(nn.Module):
    """FLASH: the unit with all pairs inside chunks and linear attention between them: cost T (C + s).

    Args:
        width: D.
        hidden: e, by default 2 D, the paper's.
        shared: s. Larger tells more positions apart.
        chunk: C, the paper's 256. Larger sees further in detail, and costs as much more.

    Raises:
        ValueError: for a chunk below 1.
    """

    def __init__(self, width: int, hidden: int | None = None, shared: int = 128, chunk: int = 256) -> None:
        super().__init__()
        if chunk < 1:
            raise ValueError(f"chunk {chunk}: expected 1 or more")
        self.width, self.chunk = width, chunk
        self.gate = Gate(width, hidden or 2 * width, shared, looks=4)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Mask = FULL,
        turn: Turn | None = None,
        bias: Float[Tensor, "b h T S"] | None = None,
        cache: Cache | None = None,
        positions: Int64[Tensor, "b T *axes"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """o; `positions`, as all that `stack.Block` hands on, may be given: the unit writes its own, place by place.

        Raises:
            ShapeError: for another width, or a mask of other keys.
            ValueError: for a mask other than causal, padding or both; for a turn, a bias or a cache.
        """
        refuse("mixed-chunk attention", turn=turn, bias=bias, cache=cache)
        u, v, looks = self.gate(x)
        length, size = x.shape[1], min(self.chunk, x.shape[1])
        known = mask.keys("mixed-chunk attention", *x.shape[:2])
        known = torch.ones(1, length, dtype=torch.bool, device=x.device) if known is None else known
        return self.gate.down(u * mixed(looks, v, self.gate.distances(size), known, causal=mask.causal))


def mixed(
    looks: Float[Tensor, "B 4 T s"],
    v: Float[Tensor, "B T e"],
    bias: Float[Tensor, "C C"],
    known: Bool[Tensor, "b T"],
    *,
    causal: bool,
) -> Float[Tensor, "B T e"]:
    """`pairs` inside chunks of C, and between them the linear sum of the keys that are known.

    Args:
        looks: q, k of the chunk and q', k' of the sum.
        v: values.
        bias: b inside a chunk.
        known: which keys are seen.
        causal: whether a position sees of its own chunk the past, and of others those before; else all of both.
    """
    length, size = v.shape[1], len(bias)
    fill = -length % size
    known = functional.pad(known, (0, fill)).view(len(known), -1, size)  # [b, N, C]
    v = functional.pad(v, (0, 0, 0, fill)).view(len(v), -1, size, v.shape[-1])  # [B, N, C, e]
    looks = functional.pad(looks, (0, 0, 0, fill)).view(len(v), 4, -1, size, looks.shape[-1])  # [B, 4, N, C, s]
    q, k, far_q, far_k = looks.unbind(1)
    inside = known[:, :, None].expand(-1, -1, size, -1)  # [b, N, C, C]
    near = pairs(q, k, v, bias, inside.tril() if causal else inside)
    sums = far_k.masked_fill(~known[..., None], 0).mT @ v  # [B, N, s, e]
    count = known.sum(dim=-1)  # [b, N]
    if causal:
        sums, count = before(sums), before(count)
    else:
        sums, count = sums.sum(dim=1, keepdim=True), count.sum(dim=1, keepdim=True)
    far = far_q @ sums / count.clamp(min=1)[..., None, None]
    return (near + far).flatten(1, 2)[:, :length]


def pairs(
    q: Float[Tensor, "*B T s"],
    k: Float[Tensor, "*B S s"],
    v: Float[Tensor, "*B S e"],
    bias: Float[Tensor, "T S"],
    seen: Bool[Tensor, "*b t S"],
) -> Float[Tensor, "*B T e"]:
    """relu(q k^T + b)^2 v over the keys seen, by their number; a query that may see none gets zeros."""
    weights = relu2((q @ k.mT + bias).masked_fill(~seen, 0))
    return weights @ v / seen.sum(dim=-1, keepdim=True).clamp(min=1)


def before(x: Shaped[Tensor, "B N *rest"]) -> Shaped[Tensor, "B N *rest"]:
    """The sum of all chunks before each."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1].cumsum(dim=1)], dim=1)
