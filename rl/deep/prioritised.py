"""Prioritised replay: transitions that surprised most are drawn most, and count for less to make up for it.

    p_i = (surprise_i + 1e-6)^alpha            as of the last time it was learnt from; the largest so far when it is new
    P(i) = p_i / sum_k p_k                     one draw from each of B equal shares of the sum (stratified)
    w_i = (N P(i))^-beta / max_j w_j           over the batch; beta rises to 1

The sums are kept in a binary tree over each replica's ring: a draw and a correction take log2(capacity) steps.

Source: Schaul, Quan, Antonoglou & Silver, "Prioritized experience replay", ICLR 2016, eq. 1, sec. 3.4, algorithm 1 and
appendix B.2.1 (proportional variant).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from lab import streams
from rl.deep.replay import Batch, Replay
from rl.explore import linear
from rl.types import Transition

FLOOR = 1e-6  # of a surprise, so that nothing is never drawn again


class SumTree:
    """R binary trees of sums over `capacity` numbers each: node i's children are 2 i and 2 i + 1, the root is 1."""

    def __init__(self, replicas: int, capacity: int, device: torch.device | str = "cpu") -> None:
        self.depth = max(1, (capacity - 1).bit_length())
        self.leaves = 1 << self.depth
        self.sums = torch.zeros(replicas, 2 * self.leaves, dtype=torch.float64, device=device)

    @property
    def total(self) -> Float64[Tensor, "R"]:
        """The sum over all leaves."""
        return self.sums[:, 1]

    def at(self, place: Int64[Tensor, "R B"]) -> Float64[Tensor, "R B"]:
        """The numbers there."""
        return self.sums.gather(1, place + self.leaves)

    def put(self, place: Int64[Tensor, "R B"], value: Float64[Tensor, "R B"]) -> None:
        """Set numbers, and the sums above them; of several for one place the largest holds."""
        node = place + self.leaves
        self.sums.scatter_reduce_(1, node, value, "amax", include_self=False)
        for _ in range(self.depth):
            node = node >> 1
            left = 2 * node
            self.sums.scatter_(1, node, self.sums.gather(1, left) + self.sums.gather(1, left + 1))

    def find(self, mass: Float64[Tensor, "R B"]) -> Int64[Tensor, "R B"]:
        """The leaf at which the running sum from the left first exceeds `mass`, in [0, total)."""
        node = torch.ones_like(mass, dtype=torch.int64)
        for _ in range(self.depth):
            left = 2 * node
            below = self.sums.gather(1, left)
            # Rounding may ask for more than is there: an empty side is never entered.
            right = (mass >= below) & (self.sums.gather(1, left + 1) > 0)
            mass = torch.where(right, mass - below, mass)
            node = left + right
        return node - self.leaves


class PrioritisedReplay:
    """A `Replay` that is drawn from by priority (see `rl.deep.replay.Memories`).

    Args:
        capacity: transitions kept for each replica.
        keys: one for each replica; its samples depend on no other.
        alpha: 0 draws uniformly, 1 in proportion to the surprise.
        beta: 0 leaves the bias of the draws, 1 takes it away; this is where it begins, and at 1 where it ends.
        beta_steps: transitions of each replica over which it rises.
    """

    asks = True  # the priorities are what it is told

    def __init__(self, capacity: int, keys: Int64[Tensor, "R"], *, alpha: float, beta: float, beta_steps: int) -> None:
        self.ring = Replay(capacity, keys)
        self.capacity, self.key, self.alpha = capacity, keys, alpha
        self.beta, self.beta_steps = beta, beta_steps
        self.tree = SumTree(len(keys), capacity, keys.device)
        self.most = torch.ones(len(keys), dtype=torch.float64, device=keys.device)  # largest priority so far

    def __len__(self) -> int:
        return len(self.ring)

    def add(self, transition: Transition) -> None:
        """Append one step of each world, as surprising as any so far."""
        places = self.ring.next_places(transition.action.shape[1]).expand(len(self.key), -1)
        self.ring.add(transition)
        self.tree.put(places, self.most[:, None].expand(places.shape))

    def sample(self, batches: int, size: int, draw: int) -> Iterator[Batch]:
        """`batches` batches by the priorities as they are when each is asked for.

        They are the draws `draw`, `draw + 1`, ... of each replica's stream.

        Raises:
            ValueError: when nothing was added yet.
        """
        if not len(self.ring):
            raise ValueError("the replay is empty, expected at least one transition before a sample")
        share = torch.arange(size, device=self.key.device)
        for b in range(draw, draw + batches):
            chance = streams.uniform(self.key[:, None], b * size + share).double()
            total = self.tree.total[:, None]
            place = self.tree.find((share + chance) / size * total)
            odds = self.tree.at(place) / total
            weight = (len(self) * odds) ** -linear(self.beta, 1.0, self.beta_steps, self.ring.added)
            yield self.ring.at(place, (weight / weight.amax(1, keepdim=True)).float())

    @torch.no_grad()
    def learned(self, batch: Batch, surprise: Float32[Tensor, "R B"]) -> None:
        """Rank the transitions of a batch anew."""
        priority = (surprise.double() + FLOOR) ** self.alpha
        self.most = torch.maximum(self.most, priority.amax(1))
        self.tree.put(batch.place, priority)

    def state_dict(self) -> dict[str, Any]:
        leaves = self.tree.sums[:, self.tree.leaves : self.tree.leaves + len(self)]
        return {"ring": self.ring.state_dict(), "priority": leaves.clone(), "most": self.most.clone()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ring.load_state_dict(state["ring"])
        self.most = state["most"].to(self.key.device, copy=True)
        self.tree.sums.zero_()
        priority: Float[Tensor, "R N"] = state["priority"].to(self.key.device)
        if priority.numel():
            place = torch.arange(priority.shape[1], device=self.key.device).expand(priority.shape)
            self.tree.put(place, priority)
