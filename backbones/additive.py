"""Additive attention: a small network says how well a query and a key fit.

    e_ts = v^T tanh(W q_t + U k_s);    a_t = softmax(e_t);    out_t = sum_s a_ts value_s

Source: Bahdanau, Cho & Bengio 2015, eqs. 5 and 6 and appendix A.1.2. U k does not depend on the query, so that a
decoder that looks once a step computes it once (`read`), as their appendix says.

Key: B batch, T queries, S keys, A the width of the network's hidden layer. The scores of all pairs need [B, T, S, A].
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from backbones.masks import FULL, Mask
from backbones.shape import wrong


def weigh(score: Float[Tensor, "B T S"], seen: Bool[Tensor, "b t S"] | None = None) -> Float[Tensor, "B T S"]:
    """softmax(score) over the keys that are seen; a query that may see none gets zeros, and no gradient."""
    if seen is None:
        return score.softmax(dim=-1)
    lowest = torch.finfo(score.dtype).min  # not -inf: where all is hidden, inf - inf would be no number
    return score.masked_fill(~seen, lowest).softmax(dim=-1).masked_fill(~seen, 0)


class AdditiveAttention(nn.Module):
    """Attention by a network of one hidden layer; queries and keys may have different widths.

    Args:
        query: features of a query.
        key: features of a key.
        hidden: A.
    """

    def __init__(self, query: int, key: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(query, hidden, bias=False)  # W
        self.key = nn.Linear(key, hidden, bias=False)  # U
        self.score = nn.Linear(hidden, 1, bias=False)  # v

    def initialise(self, generator: torch.Generator) -> None:
        """W and U from N(0, 0.001^2), v zero: at first a query looks at all keys alike (appendix B.1)."""
        self.query.weight.normal_(std=0.001, generator=generator)
        self.key.weight.normal_(std=0.001, generator=generator)
        self.score.weight.zero_()

    def forward(
        self,
        q: Float[Tensor, "B T q"],
        k: Float[Tensor, "B S k"],
        v: Float[Tensor, "B S E"],
        mask: Mask = FULL,
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B T S"]]:
        """What the queries see of the values, and the weights with which they look at the keys (rows sum to 1).

        Raises:
            ShapeError: where q or k has another width than the network was made for, or the batches differ.
            ValueError: for a mask that differs from head to head.
        """
        return self.look(q, self.read(k), v, mask)

    def read(self, k: Float[Tensor, "B S k"]) -> Float[Tensor, "B S A"]:
        """U k: computed once, looked at by many queries."""
        if k.shape[-1] != self.key.in_features:
            raise wrong("AdditiveAttention: k", k, f"[B, S, {self.key.in_features}]")
        return self.key(k)

    def look(
        self,
        q: Float[Tensor, "B T q"],
        keys: Float[Tensor, "B S A"],
        v: Float[Tensor, "B S E"],
        mask: Mask = FULL,
    ) -> tuple[Float[Tensor, "B T E"], Float[Tensor, "B T S"]]:
        """`forward` for keys that `read` has projected."""
        if q.shape[-1] != self.query.in_features:
            raise wrong("AdditiveAttention: q", q, f"[B, T, {self.query.in_features}]")
        if not len(q) == len(keys) == len(v):
            raise wrong("AdditiveAttention: q", q, f"[{len(keys)}, T, q], a row for each of keys and values")
        score = self.score(torch.tanh(self.query(q)[:, :, None] + keys[:, None]))[..., 0]  # [B, T, S]
        weights = weigh(score, mask.single("additive attention", q.shape[1], keys.shape[1], q.device))
        return weights @ v, weights
