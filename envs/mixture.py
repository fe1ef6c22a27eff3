"""Several worlds of one size as one: for agents that are to learn what holds in all of them.

A mixture of M worlds of S states each is a world of M S states, in which block m, states m S ... (m + 1) S - 1, is
world m and nothing leads from one block to another. World n of its simulator lives in block n % M for ever, so a batch
holds all of them evenly. Its start is each world's with probability 1 / M, so its optimal return is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from envs.mdp import MDPError, TabularMDP
from envs.world import World


def mix(worlds: Sequence[World], *, name: str = "mixture") -> World:
    """One world of all the given ones, with the first one's source, discount, actions and time limit.

    It has no map of its own; `World.observe` shows each part's.

    Raises:
        MDPError: when there are no worlds, or one differs in states, actions, discount or time limit from the first.
    """
    if not worlds:
        raise MDPError("a mixture of no worlds, expected at least one")
    first = worlds[0]
    for m, world in enumerate(worlds):
        for what, found, expected in (
            ("states", world.mdp.states, first.mdp.states),
            ("actions", world.actions, first.actions),
            ("discount", world.discount, first.discount),
            ("time limit", world.time_limit, first.time_limit),
            ("parts", len(world.parts), 0),
        ):
            if found != expected:
                raise MDPError(f"{what} of world {m} of the mixture {name!r}: {found}, expected {expected}")
    K = max(world.mdp.outcomes for world in worlds)
    mdp = TabularMDP(
        next_state=torch.cat(
            [_padded(world.mdp.next_state, K) + m * first.mdp.states for m, world in enumerate(worlds)]
        ),
        prob=torch.cat([torch.nn.functional.pad(w.mdp.prob, (0, K - w.mdp.outcomes)) for w in worlds]),
        reward=torch.cat([_padded(world.mdp.reward, K) for world in worlds]),
        terminated=torch.cat([_padded(world.mdp.terminated, K) for world in worlds]),
        start=torch.cat([world.mdp.start for world in worlds]) / len(worlds),
    )
    return World(
        name=name,
        source=first.source,
        mdp=mdp,
        discount=first.discount,
        time_limit=first.time_limit,
        action_names=first.action_names,
        parts=tuple(worlds),
    )


def _padded(table: Tensor, outcomes: int) -> Tensor:
    """[S, A, k] -> [S, A, K]: the last outcome again."""
    return torch.cat([table, table[..., -1:].expand(*table.shape[:2], outcomes - table.shape[2])], -1)
