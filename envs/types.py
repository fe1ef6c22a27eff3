"""The words in which worlds and agents speak: `Step` and `Worlds`.

N worlds are stepped together. Nothing resets by itself: `Step.obs` is always the true successor, and whoever drives
the worlds says with `reset(mask)` which of them begin again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float32, Int64, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Step:
    """What one action in each of N worlds led to."""

    obs: Shaped[Tensor, "N ..."]
    """The true successor's observation, also where the episode ended."""
    reward: Float32[Tensor, "N"]
    terminated: Bool[Tensor, "N"]
    """The world ended: nothing follows, nothing is bootstrapped."""
    truncated: Bool[Tensor, "N"]
    """The time limit was reached and the world did not end: the successor still has a value. Never both."""


@runtime_checkable
class Worlds(Protocol):
    """N worlds stepped together; world n is a function of its own key and its own actions."""

    n: int
    actions: int
    obs_shape: tuple[int, ...]

    def reset(self, mask: Bool[Tensor, "N"] | None = None) -> Shaped[Tensor, "N ..."]:
        """Begin a new episode in the worlds of `mask` (None: in all). Returns the observations of all N worlds."""
        ...

    def step(self, action: Int64[Tensor, "N"]) -> Step:
        """Take one action in each world. Raises RuntimeError before the first `reset`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """A tree from which `load_state_dict` continues bit for bit; the keys are not in it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, in worlds made with the same keys."""
        ...
