"""The noise of noisy networks (`backbones.noisy`), drawn from keys: one stream acts, another learns.

A network without noise takes none: then `of` draws nothing, and the call is the plain one.

Source: Fortunato et al., "Noisy networks for exploration", ICLR 2018, sec. 3.1: a draw of its own for each step that is
acted, and for each of the networks in an update; here also for each world.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from lab import streams
from rl.explore import stream_keys, world_keys

Drawn = tuple[Tensor, ...]
"""What a network takes besides the observation: nothing, or noise `[R, rows, Z]`."""


class Noise:
    """Standard normal noise for R networks that take Z numbers each."""

    def __init__(self, seeds: Sequence[int], size: int, device: torch.device | str = "cpu") -> None:
        self.size = size
        self.acting, self.learning = (stream_keys(seeds, name).to(device) for name in ("noise", "noise of learning"))
        self._index = torch.arange(size, device=device)

    def act(self, worlds: int, step: int) -> Drawn:
        """Of every world by itself, at `step`: `[R, W, Z]`."""
        return self._draw(world_keys(self.acting, worlds), step) if self.size else ()

    def learn(self, draw: int) -> Drawn:
        """The `draw`-th of the updates, shared by the rows of a batch: `[R, 1, Z]`."""
        return self._draw(self.learning[:, None], draw) if self.size else ()

    def none(self) -> Drawn:
        """No noise, for who is judged: zeros `[R, 1, Z]`."""
        return (torch.zeros(len(self.acting), 1, self.size, device=self.acting.device),) if self.size else ()

    def _draw(self, key: Int64[Tensor, "R rows"], at: int) -> Drawn:
        return (streams.normal(key.unsqueeze(-1), at * self.size + self._index),)
