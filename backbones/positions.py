"""Where a token stands: attention sees a set, so position has to be written into what it compares.

    Sinusoidal     added to the embedding, fixed      PE[p, 2i] = sin(p w_i), PE[p, 2i+1] = cos(p w_i)
    Learned        added to the embedding, trained    one row for each position up to a limit
    Rotary         turns queries and keys             q_p . k_s then depends on p - s alone
    Rotary2D       the same for rows and columns      half of the pairs turn by the row, half by the column
    ALiBi          added to the logits, fixed         -slope_h |p - s|
    RelativeBias   added to the logits, trained       one number a head for each bucket of distances (T5)

Each is a `Positions`: it says what it adds, how it turns and what it biases, and does nothing where it says nothing.

Key: p position of a query, s of a key, d the width (of the head, where heads turn), w_i = theta^(-2i/d) the i-th
frequency, i = 0 ... d/2 - 1.

Positions are an argument everywhere, [B, T] or [1, T], never an implied 0 ... T-1: a padded batch, a cached
continuation and several sequences packed into one row then need nothing special.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

Turn = tuple[Tensor, Tensor]  # what `rotate` multiplies by, [b, 1, T, d] each


class Positions(nn.Module):
    """A way to write positions down; this one writes nothing (order is then only what a causal mask tells)."""

    def add(self, x: Float[Tensor, "B T D"], positions: Int64[Tensor, "b T *axes"]) -> Float[Tensor, "B T D"]:
        """The embeddings, with positions added to them."""
        return x

    def turn(self, positions: Int64[Tensor, "b T *axes"], dtype: torch.dtype) -> Turn | None:
        """What `rotate` turns queries and keys by."""
        return None

    def bias(
        self, queries: Int64[Tensor, "b T *axes"], keys: Int64[Tensor, "c S *axes"], dtype: torch.dtype
    ) -> Float[Tensor, "d H T S"] | None:
        """What is added to the logits; d is b or c, where one of them is 1."""
        return None


def frequencies(width: int, theta: float, device: torch.device) -> Float[Tensor, "half"]:
    """w_i = theta^(-2i/d) in float64. Raises ValueError for an odd width."""
    if width % 2:
        raise ValueError(f"positions turn pairs of features: the width is {width}, and must be even")
    return theta ** -(torch.arange(0, width, 2, device=device, dtype=torch.float64) / width)


@dataclass(frozen=True)
class Stretch:
    """How the frequencies of a model that was trained on short texts are slowed down for longer ones.

    Without a `length` all are divided by `factor` (position interpolation: Chen et al. 2023, eq. 4). With one, only
    those that turn less than `slow` times in it; those that turn more than `fast` times stay, and between the two
    the share that stays grows linearly with the turns (Llama 3.1: Grattafiori et al. 2024, sec. 3.4.2 and its code).

    Attributes:
        factor: how many times longer the texts are.
        length: that of the texts it was trained on, in positions.
        slow: turns in `length`, below which a frequency is divided.
        fast: turns in `length`, above which it stays.
    """

    factor: float
    length: int | None = None
    slow: float = 1.0
    fast: float = 4.0

    def __call__(self, frequency: Float[Tensor, "half"]) -> Float[Tensor, "half"]:
        if self.length is None:
            return frequency / self.factor
        turns = self.length * frequency / (2 * math.pi)
        kept = ((turns - self.slow) / (self.fast - self.slow)).clamp(0, 1)
        return frequency * (kept + (1 - kept) / self.factor)


def sinusoidal(positions: Int64[Tensor, "B T"], width: int, theta: float = 10_000.0) -> Float[Tensor, "B T D"]:
    """The fixed encoding, sine and cosine interleaved (Vaswani et al. 2017, sec. 3.5). float64, in [-1, 1]."""
    angle = positions[..., None] * frequencies(width, theta, positions.device)  # [B, T, D/2], radians
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class Sinusoidal(Positions):
    """`sinusoidal`, added to embeddings of any width."""

    def __init__(self, theta: float = 10_000.0) -> None:
        super().__init__()
        self.theta = theta

    def add(self, x: Float[Tensor, "B T D"], positions: Int64[Tensor, "b T"]) -> Float[Tensor, "B T D"]:
        return x + sinusoidal(positions, x.shape[-1], self.theta).to(x.dtype)


class Learned(Positions):
    """One trained vector for each position (Gehring et al. 2017, sec. 3.1; GPT-2).

    Args:
        length: how many positions there are; a later one raises IndexError.
        width: D.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(length, width)

    def add(self, x: Float[Tensor, "B T D"], positions: Int64[Tensor, "b T"]) -> Float[Tensor, "B T D"]:
        return x + self.table(positions)


class Rotary(Positions):
    """Rotary position embedding: the feature pair (i, i + d/2) is turned by the angle p w_i.

    Source: Su et al. 2021, "RoFormer", eq. 15. The pairing is Llama's (first half with second half), which permutes
    the paper's (2i, 2i+1). It holds no weights and no buffers: angles are made in float64 for the positions asked.

    Args:
        width: d, the width of one head; even.
        theta: the base of the frequencies. Larger turns more slowly and reaches further.
        stretch: what slows them for texts longer than those of the training, if anything does.
    """

    def __init__(self, width: int, theta: float = 10_000.0, stretch: Stretch | None = None) -> None:
        super().__init__()
        frequencies(width, theta, torch.device("cpu"))  # refuse an odd width now
        self.width, self.theta, self.stretch = width, theta, stretch

    def angles(self, positions: Int64[Tensor, "B T"]) -> Float[Tensor, "B T half"]:
        """p w_i in radians, float64; shared by all layers and heads of one forward pass."""
        frequency = frequencies(self.width, self.theta, positions.device)
        return positions[..., None] * (frequency if self.stretch is None else self.stretch(frequency))

    def turn(self, positions: Int64[Tensor, "b T"], dtype: torch.dtype) -> Turn:
        return turned(self.angles(positions), dtype)


class Rotary2D(Positions):
    """Rotary embedding of places in a picture: of the pairs, the first half turn by the row, the rest by the column.

    Source: Su, "Rotary Transformer, 2-D" (kexue.fm/archives/8397, 2021); as in EVA-02 (Fang et al. 2023, sec. 2).
    Positions are [B, T, 2]: row and column. q_p . k_s then depends on the two differences alone.

    Args:
        width: d, the width of one head; a multiple of 4.
        theta: the base of the frequencies of each axis.
    """

    def __init__(self, width: int, theta: float = 10_000.0) -> None:
        super().__init__()
        if width % 4:
            raise ValueError(f"Rotary2D: a head of width {width} has no two equal halves of pairs; expected 4, 8, ...")
        self.axis = Rotary(width // 2, theta)

    def turn(self, positions: Int64[Tensor, "b T 2"], dtype: torch.dtype) -> Turn:
        angle = torch.cat([self.axis.angles(positions[..., 0]), self.axis.angles(positions[..., 1])], dim=-1)
        return turned(angle, dtype)


class ALiBi(Positions):
    """-slope_h |p - s| on the logits: the further, the fainter (Press, Smith & Lewis 2022, sec. 3).

    Slopes are 2^(-8 h / H), h = 1 ... H; where H is no power of two, those of the next lower power, and then every
    other one of the next higher (the authors' own rule).
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        lower = 2 ** math.floor(math.log2(heads))
        slopes = [2 ** (-8 * (h + 1) / lower) for h in range(lower)]
        slopes += [2 ** (-8 * (h + 1) / (2 * lower)) for h in range(0, 2 * (heads - lower), 2)]
        self.slopes = slopes

    def bias(
        self, queries: Int64[Tensor, "b T"], keys: Int64[Tensor, "c S"], dtype: torch.dtype
    ) -> Float[Tensor, "d H T S"]:
        distance = (queries[:, :, None] - keys[:, None]).abs()[:, None]  # [b, 1, T, S]
        exact = torch.promote_types(dtype, torch.float32)  # in bfloat16 a distance of 515 would already be 516
        return (-torch.tensor(self.slopes, dtype=exact, device=keys.device).view(-1, 1, 1) * distance).to(dtype)


class RelativeBias(Positions):
    """One trained number a head for each bucket of p - s; buckets widen with distance (Raffel et al. 2020, sec. 2.1).

    Half of the buckets hold one distance each, the others logarithmically more, up to `distance`; all that is further
    shares the last. It is added to the logits of every layer, and its weights are shared by all of them, as in T5.

    Args:
        heads: H.
        both: whether keys may lie ahead (an encoder): half of the buckets are then theirs.
        buckets: their number. More tell distances apart more finely.
        distance: where the last bucket begins. Larger tells apart what is further away.
    """

    def __init__(self, heads: int, *, both: bool = False, buckets: int = 32, distance: int = 128) -> None:
        super().__init__()
        self.both, self.buckets, self.distance = both, buckets, distance
        self.table = nn.Embedding(buckets, heads)

    def bucket(self, behind: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
        """The bucket of each `behind` = p - s."""
        count = self.buckets // 2 if self.both else self.buckets
        ahead = torch.where(behind < 0, count, 0) if self.both else 0
        behind = behind.abs() if self.both else behind.clamp(min=0)
        exact = count // 2
        far = torch.log(behind.clamp(min=1).float() / exact) / math.log(self.distance / exact) * (count - exact)
        return ahead + torch.where(behind < exact, behind, (exact + far.long()).clamp(max=count - 1))

    def bias(
        self, queries: Int64[Tensor, "b T"], keys: Int64[Tensor, "c S"], dtype: torch.dtype
    ) -> Float[Tensor, "d H T S"]:
        return self.table(self.bucket(queries[:, :, None] - keys[:, None])).permute(0, 3, 1, 2).to(dtype)


def turned(angle: Float[Tensor, "b T half"], dtype: torch.dtype) -> Turn:
    """(cos, cos) and (-sin, sin) of the angles, for both halves of the features: one pass's work, for all layers."""
    cos, sin = angle.cos().to(dtype)[:, None], angle.sin().to(dtype)[:, None]  # [b, 1, T, d/2]
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


def rotate(
    x: Float[Tensor, "B H T d"], cos: Float[Tensor, "b 1 T d"], sin: Float[Tensor, "b 1 T d"]
) -> Float[Tensor, "B H T d"]:
    """Turn each pair (x_i, x_{i+d/2}) by its angle, given what `turned` made of the angles; b is B or 1."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)
