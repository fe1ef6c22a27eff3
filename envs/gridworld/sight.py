"""What is seen of a described grid: how cells look in each mode, the keys in hand, the cue, and what looks alike."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from envs.gridworld.grid import Grid
from envs.gridworld.ground import Ground
from envs.gridworld.memory import Memory
from envs.layout import LOOKS, Layout


def layout(grid: Grid, ground: Ground, memory: Memory) -> Layout:
    """The map behind the world's tables."""
    W, Q, C = len(memory.used), memory.cues, len(ground.own)
    kind = np.stack([memory.kinds(w) for w in range(W)]).repeat(Q, 0)  # [M, C]
    look = np.array([LOOKS.index(kind.like) for kind in grid.kinds.values()])
    looks = np.repeat(look[ground.kind][None], W * Q, 0)  # [M, rows, cols]
    looks[:, ground.row, ground.col] = look[kind]
    shows = np.array([kind.cue for kind in grid.kinds.values()])[kind] & bool(grid.cues)  # [M, C]
    names, badges = _badges(memory, shows)
    return Layout(
        glyphs=grid.map,
        look=torch.from_numpy(looks),
        cell=torch.from_numpy(np.tile(np.stack([ground.row, ground.col], 1).astype(np.int64), (W * Q, 1))),
        mode=torch.arange(W * Q).repeat_interleave(C),
        modes=memory.labels(),
        badges=torch.from_numpy(badges) if names else None,
        badge_names=names,
        wind=grid.wind.up if grid.wind else (),
        alike=_alike(grid, kind, shows, Q) if grid.alike or grid.cues else None,
    )


def _badges(memory: Memory, shows: Bool[np.ndarray, "M C"]) -> tuple[tuple[str, ...], Float32[np.ndarray, "S V"]]:
    """Names and values, S = M C: of each colour the share of its keys in hand, of each cue 1 where it is seen."""
    keys = [colour for colour in memory.colours if memory.count(colour, doors=False)]
    names = (*(f"{colour} key" for colour in keys), *(f"cue {name}" for name in memory.grid.cues))
    badge = np.zeros((*shows.shape, len(names)), np.float32)
    for v, colour in enumerate(keys):
        share = memory.in_hand(colour) / memory.count(colour, doors=False)  # [W]
        badge[..., v] = share.repeat(memory.cues)[:, None]
    for q in range(len(memory.grid.cues)):
        badge[q :: memory.cues, :, len(keys) + q] = shows[q :: memory.cues]
    return names, badge.reshape(shows.size, len(names))


def _alike(grid: Grid, kind: Int64[np.ndarray, "M C"], shows: Bool[np.ndarray, "M C"], cues: int) -> Int64[Tensor, "S"]:
    """For each state the first that looks just like it: of the same memory, in an alike cell, with the cue unseen."""
    M, C = kind.shape
    mode = np.arange(M)[:, None]
    place = np.where(np.array([name in grid.alike for name in grid.kinds])[kind], C, np.arange(C))
    seen = np.where(shows, mode % cues + 1, 0)
    looks = ((mode // cues) * (C + 1) + place) * (cues + 1) + seen  # a number for each thing that can be seen
    _, first, which = np.unique(looks, return_index=True, return_inverse=True)
    return torch.from_numpy(first[which.ravel()])
