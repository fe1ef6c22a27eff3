"""The returns that C51's histogram must be able to say: known exactly where the world is a table."""

from __future__ import annotations

from typing import Any

from envs.gymworlds import GymWorld
from envs.world import World
from rl import dp
from rl.recipe import AgentError, gamma_of

SMALL = 10_000
"""States of a table whose exact values are computed for this alone."""
MARGIN = 0.05
"""What the range has beyond them on each side, as a share of it: a softmax never says its ends for certain."""


def range_of(config: Any, world: World | GymWorld) -> tuple[float, float]:
    """(low, high) as `config` has them; what is None, from the least and the most that r + gamma v*(s') can be.

    r and s' are all that may come of any action in any state in which something is decided, and v* the exact optimal
    values: what the targets are once the greedy policy is optimal. On the way there they may lie beyond, and where
    chance adds up over many steps so may single returns: `target_clipped` in the log says how often.

    Raises:
        AgentError: where there is no table or a large one, and not both ends are given.
        DPError: where no finite values are optimal.
    """
    if config.low is not None and config.high is not None:
        return config.low, config.high
    if not isinstance(world, World) or world.mdp.states > SMALL:
        which = "the world is no table" if not isinstance(world, World) else f"the table has {world.mdp.states} states"
        raise AgentError(f"which returns {world.name} can give is not known, for {which}: expected both low and high")
    mdp, gamma = world.mdp, gamma_of(config, world)
    values = dp.value_iteration(mdp, gamma).values
    follows = mdp.reward + gamma * values[mdp.next_state.long()] * ~mdp.terminated  # [S, A, K]
    seen = follows[(mdp.prob > 0) & mdp.lived()[:, None, None]]
    least, most = float(seen.min()), float(seen.max())
    margin = MARGIN * (most - least) or 1.0  # of a world where all is the same
    return (
        least - margin if config.low is None else config.low,
        most + margin if config.high is None else config.high,
    )
