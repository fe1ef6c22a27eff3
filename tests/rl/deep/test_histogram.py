"""The range of C51's histogram: by hand from exact values, as asked for, and refused where nothing tells it."""

import pytest

from envs.catalog import load
from envs.world import World
from rl.recipe import AgentError
from rl.recipes.deep import AGENTS, CategoricalConfig
from rl.recipes.histogram import SMALL, range_of


def test_it_holds_all_that_can_follow_the_best_policy() -> None:
    """Zhao's 2 x 2 cells at discount 1/2, where the goal pays 1 for ever and the forbidden cell and the rim cost 1: the
    least is -1 + v / 2 of a state worth 1, the most 1 + 2 / 2; a twentieth of 2.5 more on each side."""
    world = load("zhao-2x2")
    low, high = range_of(CategoricalConfig(gamma=0.5), world)
    assert (low, high) == pytest.approx((-0.5 - 0.125, 2 + 0.125))
    assert range_of(CategoricalConfig(gamma=0.5, low=-3.0), world) == pytest.approx((-3.0, 2.125))
    assert range_of(CategoricalConfig(gamma=0.5, high=7.0), world) == pytest.approx((-0.625, 7.0))


def test_chance_may_bring_more_than_is_expected() -> None:
    """FrozenLake's best policy is worth less than 1 everywhere, but a single step may bring 1; nothing costs."""
    assert range_of(CategoricalConfig(), load("FrozenLake-v1")) == pytest.approx((-0.05, 1.05))


def test_what_is_asked_for_needs_no_table() -> None:
    pole = load("CartPole-v1")
    assert range_of(CategoricalConfig(low=0.0, high=9.0), pole) == (0.0, 9.0)
    for name in ("c51", "rainbow"):
        with pytest.raises(AgentError, match="CartPole-v1 can give is not known, for the world is no table: expected"):
            AGENTS[name].build(AGENTS[name].config(low=0.0), pole, 1, 0)


def test_a_large_table_is_not_solved_for_it() -> None:
    maze = load("maze", {"maze.size": 151})
    assert isinstance(maze, World)
    assert maze.mdp.states > SMALL
    with pytest.raises(AgentError, match=r"the table has \d+ states: expected both low and high"):
        range_of(CategoricalConfig(), maze)
