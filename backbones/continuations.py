"""Several continuations of each prompt, read at once: every prompt is computed once, and nothing is padded.

One row of N tokens holds, for each of B prompts, the prompt and then its K continuations, one after another:

    prompt 0 | continuation 0, 0 | continuation 0, 1 | prompt 1 | continuation 1, 0 | ...

A token sees its own past and, in a continuation, the whole prompt before it; not the other continuations, and not the
other prompts. Positions go on from the prompt in each continuation alike. What is computed for a token is therefore
what it would be in a row of its own, up to rounding; and linear layers, which are most of a small model's work, run
over N tokens and no more. In the attention alone prompts and continuations are laid side by side, filled up to the
longest.

Source of the idea: packing with block masks is usual (Krell et al. 2021, "Efficient sequence packing"); the shared
prompt is the prefix sharing of inference engines, with gradients.

Key: B prompts, K continuations of each, N tokens in all, P and C the longest of either, H heads, G key-value heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from backbones.masks import Mask


class Continuations:
    """Where everything is in the row.

    Args:
        prompts: length of each prompt, B of them; may be 0.
        continuations: lengths of each prompt's continuations, B times K, 1 or more each.
        device: of the tensors.

    Raises:
        ValueError: for no prompt, unequally many continuations, or an empty one.

    Attributes:
        tokens: N.
        position: of each token in its sequence. int64 [N].
        before: for each continuation token that has a past, the place of the token before it. int64 [M].
        scored: the places of these M tokens themselves.
        owner: the continuation, b K + k, that each of them is in.
    """

    def __init__(
        self,
        prompts: Sequence[int],
        continuations: Sequence[Sequence[int]],
        device: torch.device | str = "cpu",
    ) -> None:
        each = {len(lengths) for lengths in continuations}
        if not prompts or len(prompts) != len(continuations) or len(each) != 1 or each == {0}:
            raise ValueError(f"{len(prompts)} prompts with {sorted(each)} continuations: expected equally many of each")
        if min(prompts) < 0 or min(min(lengths) for lengths in continuations) < 1:
            raise ValueError("a continuation without tokens, or a prompt of negative length")
        self.each = each.pop()
        first, heads, tails, places, before, owner = 0, list[int](), list[int](), list[Tensor](), list[Tensor](), []
        for prompt, lengths in zip(prompts, continuations, strict=True):
            heads.append(first)
            places.append(torch.arange(prompt))
            last, first = first + prompt - 1, first + prompt
            for length in lengths:
                here = torch.arange(first, first + length)
                places.append(torch.arange(prompt, prompt + length))
                previous = here - 1
                previous[0] = last
                before.append(previous if prompt else previous[1:])  # without a prompt the first has no past
                owner.append(len(tails))
                tails.append(first)
                first += length
        self.tokens = first
        lengths_of = torch.tensor([length for lengths in continuations for length in lengths])
        counts = torch.tensor([len(part) for part in before])
        self.position = torch.cat(places).to(device)
        self.before = torch.cat(before).to(device)
        self.owner = torch.arange(len(tails)).repeat_interleave(counts).to(device)
        self.scored = self._scored(torch.tensor(tails), lengths_of, counts).to(device)
        self._prompt, self._prompted = _spread(torch.tensor(heads), torch.tensor(prompts), device)
        self._own, self._said = _spread(torch.tensor(tails), lengths_of, device)
        self._prompt_places, self._own_places = self._prompt[self._prompted], self._own[self._said]
        causal = torch.ones(self._own.shape[1], self._own.shape[1], dtype=torch.bool, device=device).tril()
        head = self._prompted.repeat_interleave(self.each, 0)[:, None].expand(-1, len(causal), -1)  # [BK, C, P]
        self._mask = torch.cat([head, causal.expand(len(head), -1, -1)], dim=2)[:, None]  # [BK, 1, C, P + C]

    @staticmethod
    def _scored(
        first: Int64[Tensor, "BK"], length: Int64[Tensor, "BK"], counts: Int64[Tensor, "BK"]
    ) -> Int64[Tensor, "M"]:
        """The last `counts` places of each continuation."""
        end = (first + length).repeat_interleave(counts)
        total = counts.cumsum(0).repeat_interleave(counts)
        return end - total + torch.arange(len(end))

    def sums(self, value: Float[Tensor, "M"]) -> Float[Tensor, "BK"]:
        """Of a number for each scored token, the sum over each continuation."""
        return value.new_zeros(len(self._own)).index_add(0, self.owner, value)

    def matrix(self) -> Bool[Tensor, "1 1 N N"]:
        """Which key each token sees, written out: for attention that does more than `attend`."""
        device = self.position.device
        pair, part = (torch.zeros(self.tokens, dtype=torch.int64, device=device) for _ in range(2))
        rows = torch.arange(len(self._own), device=device)
        owner = rows[:, None].expand_as(self._own)[self._said]  # the continuation of each continuation's token
        part[self._own_places] = owner + 1
        pair[self._own_places] = owner // self.each
        inside = torch.arange(len(self._prompt), device=device)[:, None].expand_as(self._prompt)[self._prompted]
        pair[self._prompt_places] = inside
        related = (pair[:, None] == pair) & ((part == 0) | (part[:, None] == part))
        return (related & (self.position <= self.position[:, None]))[None, None]

    def attend(
        self,
        q: Float[Tensor, "1 H N d"],
        k: Float[Tensor, "1 G N d"],
        v: Float[Tensor, "1 G N e"],
        scale: float | None = None,
    ) -> Float[Tensor, "1 H N e"]:
        """softmax(q k^T scale) v over what each token sees; `scale` is by default 1 / sqrt(d)."""
        groups = q.shape[1] != k.shape[1]
        out = q.new_zeros(q.shape[1], self.tokens, v.shape[-1])
        asked, keys, values = (_laid(x, self._prompt) for x in (q, k, v))
        if self._prompt.shape[1]:
            read = functional.scaled_dot_product_attention(
                asked, keys, values, is_causal=True, scale=scale, enable_gqa=groups
            )
            out = out.index_copy(1, self._prompt_places, _taken(read, self._prompted))
        asked, own, said = (_laid(x, self._own) for x in (q, k, v))
        keys = torch.cat([keys.repeat_interleave(self.each, 0), own], dim=2)  # [BK, G, P + C, d]
        values = torch.cat([values.repeat_interleave(self.each, 0), said], dim=2)
        read = functional.scaled_dot_product_attention(
            asked, keys, values, attn_mask=self._mask, scale=scale, enable_gqa=groups
        )
        return out.index_copy(1, self._own_places, _taken(read, self._said))[None]


@dataclass(frozen=True)
class Reading(Mask):
    """The mask of a row of continuations: attention by `Continuations.attend`, or by the whole matrix."""

    row: Continuations | None = None

    def matrix(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "b h t s"] | None:
        """Raises ValueError for another number of tokens than the row has."""
        if self.row is None or queries != self.row.tokens or keys != self.row.tokens:
            raise ValueError(f"a row of continuations for {queries} queries and {keys} keys: expected its own tokens")
        return self.row.matrix()


def _spread(
    first: Int64[Tensor, "S"], length: Int64[Tensor, "S"], device: torch.device | str
) -> tuple[Int64[Tensor, "S L"], Bool[Tensor, "S L"]]:
    """The places of sequences laid side by side, the first of all where one is over; and where they are not over."""
    step = torch.arange(int(length.max()))
    inside = step < length[:, None]
    return torch.where(inside, first[:, None] + step, 0).to(device), inside.to(device)


def _laid(x: Float[Tensor, "1 H N d"], places: Int64[Tensor, "S L"]) -> Float[Tensor, "S H L d"]:
    """The sequences side by side."""
    return x[0][:, places].transpose(0, 1)


def _taken(x: Float[Tensor, "S H L d"], inside: Bool[Tensor, "S L"]) -> Float[Tensor, "H n d"]:
    """What is no filling, in the order of the places."""
    return x.transpose(1, 2)[inside].transpose(0, 1)
