"""From numbers by state to numbers by cell, in map order: row by row, None in walls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from torch import Tensor

import envs
from envs.layout import LOOKS


def has_map(world: envs.World) -> bool:
    """Every state is on the map. (The states of a mixture are on several.)"""
    return world.layout is not None and len(world.layout.cell) == world.mdp.states


def cell_states(world: envs.World) -> Int64[np.ndarray, "M rows cols"]:
    """The state of each cell in each mode of a world with a map; -1 in walls, and in gates that are never open."""
    layout = world.layout
    assert layout is not None
    states = layout.states
    solid = (layout.look == LOOKS.index("wall")) | (layout.look == LOOKS.index("door"))
    return states.masked_fill(solid & ~world.mdp.lived()[states], -1).numpy()


def in_map_order(world: envs.World, by_state: Sequence[Any] | Float64[Tensor, "S"], mode: int = 0) -> list[Any]:
    """One entry for each cell of that mode, row by row, None in walls; without a map, one for each state."""
    given = np.empty(world.mdp.states + 1, object)
    given[:-1] = by_state.tolist() if isinstance(by_state, Tensor) else by_state
    given[-1] = None
    found: list[Any] = (given[cell_states(world)[mode].ravel()] if has_map(world) else given[:-1]).tolist()
    return found
