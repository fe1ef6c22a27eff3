"""What an observation looks like to a linear learner: the features that are not 0, by number and by size.

    x(s) = sum over j of strength_j e_(index_j)

Tile coding has one such feature a tiling, all of strength 1; a dense basis has all of them. A table is the case of one
feature, the state's own, of strength 1.

Source: Sutton & Barto 2018, sec. 9.5 (bases, in `backbones.features`).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from backbones.features import Fourier, Polynomial, TileCoding
from rl.tabular.table import summed


class Active(NamedTuple):
    """k features of each observation; all others are 0."""

    which: Int64[Tensor, "*B k"]
    strength: Float64[Tensor, "*B k"]


@runtime_checkable
class Features(Protocol):
    """Observations as features."""

    size: int
    """n, how many features there are."""

    @property
    def rates(self) -> Float64[Tensor, "n"] | float:
        """What to multiply each weight's step size with."""
        ...

    def __call__(self, obs: Shaped[Tensor, "*shape"]) -> Active:
        """The features of observations [*B, ...]."""
        ...


class Scaled:
    """Bounded numbers [..., k] to [0, 1]; what lies beyond a bound is taken for the bound."""

    def __init__(self, low: Float[Tensor, "k"], high: Float[Tensor, "k"], device: torch.device | str = "cpu") -> None:
        self.low, self.span = low.double().to(device), (high.double() - low.double()).to(device)

    def __call__(self, obs: Float[Tensor, "*B k"]) -> Float64[Tensor, "*B k"]:
        return ((obs.double() - self.low) / self.span).clamp(0, 1)


class Tiles:
    """Tile coding; each weight's step size is a share of 1 / tilings, so that a step of 1 corrects an error at once."""

    def __init__(self, scale: Scaled, tiles: int, tilings: int) -> None:
        self.scale = scale
        self.coding = TileCoding(len(scale.low), tiles, tilings).to(scale.low.device)
        self.size, self.rates = self.coding.outputs, 1 / tilings

    def __call__(self, obs: Float[Tensor, "*B k"]) -> Active:
        index = self.coding.indices(self.scale(obs))
        return Active(index, torch.ones_like(index, dtype=torch.float64))


class Dense:
    """A basis of which every feature counts everywhere: Fourier (with the rates that belong to it) or Polynomial."""

    def __init__(self, scale: Scaled, basis: Fourier | Polynomial) -> None:
        self.scale, self.basis, self.size = scale, basis.to(scale.low.device), basis.outputs
        self.rates: Float64[Tensor, "n"] | float = basis.rates() if isinstance(basis, Fourier) else 1.0

    def __call__(self, obs: Float[Tensor, "*B k"]) -> Active:
        strength = self.basis(self.scale(obs))
        return Active(torch.arange(self.size, device=obs.device).expand(strength.shape), strength)


class OfStates:
    """The features of a finite world's states, looked up by the state's number.

    Args:
        seen: features [S, k] of all states in order.
        size: n.
        rates: as in `Features`.
    """

    def __init__(self, seen: Active, size: int, rates: Float64[Tensor, "n"] | float = 1.0) -> None:
        self.seen, self.size, self.rates = seen, size, rates

    def __call__(self, obs: Int64[Tensor, "*B"]) -> Active:
        return Active(self.seen.which[obs], self.seen.strength[obs])


def one_hot(states: int, device: torch.device | str = "cpu") -> OfStates:
    """A table: every state has a feature of its own."""
    index = torch.arange(states, device=device).unsqueeze(-1)
    return OfStates(Active(index, torch.ones_like(index, dtype=torch.float64)), states)


def read(w: Float64[Tensor, "R n *out"], x: Active) -> Float64[Tensor, "R M *out"]:
    """w . x(s) of each replica's own weights, for features [R, M, k]."""
    found = w[torch.arange(len(w), device=w.device).view(-1, 1, 1), x.which]  # [R, M, k, *out]
    R, M, k = x.which.shape
    parts = found.view(R * M, k, -1) * x.strength.reshape(R * M, k, 1)
    return summed(parts).view(R, M, *w.shape[2:])
