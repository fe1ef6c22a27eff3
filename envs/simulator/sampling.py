"""One of K outcomes for each of many rows of probabilities, drawn by the bits of an integer.

The outcome of a draw i of b bits is the number of thresholds ceil(cum[k] 2^b) that i reaches, where cum is the running
sum of the row's probabilities, and never beyond the last outcome that is possible (the inverse of the distribution
function, Devroye 1986, section III.2). Two ways to find it, which give the same outcome for every i:

* rows whose thresholds all fall on the edges of B equal bins need no search: the bin of i is (i B) >> b, and tables
  are laid out bin by bin;
* any other rows are searched by halves, without a branch: ceil(log2 K) gathers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int, Int32, Shaped
from torch import Tensor

BINS = 32  # at most: (i B) of 24 bits fits in 31 then
SLOTS = 2**24  # of all rows together, at most, where bins are more than outcomes


def thresholds(prob: Float64[Tensor, "P K"], bits: int) -> Int[Tensor, "P K"]:
    """ceil(cum 2^bits), and 2^bits (which no draw reaches) from the last possible outcome on; int64."""
    last = prob.shape[-1] - 1 - (prob > 0).flip(-1).int().argmax(-1, keepdim=True)  # [P, 1]
    beyond = torch.arange(prob.shape[-1]) >= last
    return (prob.cumsum(-1) * 2.0**bits).ceil().long().masked_fill(beyond, 2**bits)


@dataclass(frozen=True, eq=False)
class Choice:
    """P rows of outcomes, in `width` slots a row; `choice` makes it, and says which outcome lies in which slot."""

    width: int
    bits: int
    """Of a draw: 24 (draws are int32) or 53 (int64)."""
    last: Int[Tensor, "slots"] | None
    """The last draw that stays in each slot; None: slots are equal bins."""

    @property
    def certain(self) -> bool:
        """Whether nothing is to be drawn: there is but one slot to every row."""
        return self.width == 1

    def slot(self, row: Int32[Tensor, "N"] | None, draw: Int[Tensor, "N"]) -> Int32[Tensor, "N"]:
        """The slot of each draw, counted through all rows; a row of None is row 0. Not for who is `certain`."""
        if self.last is None:
            bins = (draw * self.width).bitwise_right_shift_(self.bits)
            return bins if row is None else torch.add(bins, row, alpha=self.width)
        slot = torch.zeros_like(draw, dtype=torch.int32) if row is None else row * self.width
        half, sign = self.width // 2, 8 * self.last.element_size() - 1
        while half:
            at = slot if half == 1 else slot + (half - 1)
            beyond = (self.last.index_select(0, at) - draw).bitwise_right_shift_(sign)  # -1 where the draw is beyond
            slot = slot + beyond.int().bitwise_and_(half)
            half //= 2
        return slot

    def to(self, device: torch.device | str) -> Choice:
        """The same on another device."""
        return self if self.last is None else Choice(self.width, self.bits, self.last.to(device))


def choice(prob: Float64[Tensor, "P K"]) -> tuple[Choice, Int32[Tensor, "P width"] | None]:
    """Lay out rows of probabilities, each summing to 1, for draws of 24 bits: in bins where they fit.

    Returns the choice and the outcome in each slot (None: slot k holds outcome k), by which `lay` lays out tables.
    """
    (P, K), bits = prob.shape, 24
    if K == 1:
        return Choice(1, bits, None), None
    limit = thresholds(prob, bits)
    B = _bins(limit, bits)
    if B is not None:
        first = (torch.arange(B) * 2**bits + B - 1) // B  # the first draw of each bin
        outcome = torch.searchsorted(limit, first.expand(P, B).contiguous(), right=True).int()
        own = B == K and bool((outcome == torch.arange(B)).all())
        return Choice(B, bits, None), None if own else outcome
    found = search(prob)
    width = found.width
    slots = torch.arange(width, dtype=torch.int32).clamp(max=K - 1).expand(P, width)
    return found, None if width == K else slots


def search(prob: Float64[Tensor, "P K"], bits: int = 24) -> Choice:
    """Rows of probabilities to be searched: slot k of a row holds outcome k, and those beyond K are never drawn."""
    K = prob.shape[-1]
    width = 1 << (K - 1).bit_length()
    last = torch.nn.functional.pad(thresholds(prob, bits), (0, width - K), value=2**bits) - 1
    return Choice(width, bits, last.flatten().to(torch.int32 if bits == 24 else torch.int64))


def lay(table: Shaped[Tensor, "P K"], outcome: Int32[Tensor, "P width"] | None) -> Shaped[Tensor, "slots"]:
    """The table's entries slot by slot, row after row."""
    return (table if outcome is None else table.gather(1, outcome.long())).flatten().contiguous()


def _bins(limit: Tensor, bits: int) -> int | None:
    """The fewest equal bins whose edges hold every threshold, None where there are none that pay."""
    found = torch.unique(limit)
    for B in range(1, BINS + 1):
        if len(limit) * B > SLOTS and limit.shape[1] < B:
            return None
        edge = (found * B) >> bits
        if bool((((edge << bits) + B - 1) // B == found).all()):
            return B
    return None
