"""What `make = "..."` of the grid language may name: worlds that are computed, not drawn by hand.

A *map maker* draws a map, and all else of the language applies to it; a *table maker* makes the whole world. Their
parameters stand in a table of the maker's own name, `[maze] size = 20`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from envs.makers.blackjack import blackjack
from envs.makers.car_rental import car_rental
from envs.makers.made import Made, Parameter
from envs.makers.maze import perfect_maze, t_maze
from envs.makers.textbook import gambler, maximization_bias

__all__ = ["MAKERS", "Made", "MapMaker", "Parameter", "TableMaker"]


@dataclass(frozen=True)
class MapMaker:
    """Draws a map. With a parameter `seed` it draws as many maps as there are seeds."""

    parameters: dict[str, Parameter]
    draw: Callable[..., tuple[str, ...]]
    """Parameters by name -> rows of glyphs."""


@dataclass(frozen=True)
class TableMaker:
    """Makes states, dynamics and map together."""

    parameters: dict[str, Parameter]
    make: Callable[..., Made]
    """Parameters by name -> the world's tables."""


MAKERS: dict[str, MapMaker | TableMaker] = {
    "maze": MapMaker(
        {"size": Parameter(10, 2, 2000, whole=True), "seed": Parameter(0, 0, 2**53, whole=True)}, perfect_maze
    ),
    "t-maze": MapMaker({"length": Parameter(10, 1, 1_000_000, whole=True)}, t_maze),
    "gambler": TableMaker({"p": Parameter(0.4, 0, 1), "goal": Parameter(100, 2, 1000, whole=True)}, gambler),
    "blackjack": TableMaker(
        {"stands": Parameter(17, 12, 21, whole=True), "natural": Parameter(1, -1e6, 1e6)}, blackjack
    ),
    "car-rental": TableMaker(
        {
            "max_cars": Parameter(20, 1, 30, whole=True),
            "max_moved": Parameter(5, 0, 20, whole=True),
            "rent": Parameter(10, -1e6, 1e6),
            "move_cost": Parameter(2, -1e6, 1e6),
            "requests_1": Parameter(3, 0, 100),
            "requests_2": Parameter(4, 0, 100),
            "returns_1": Parameter(3, 0, 100),
            "returns_2": Parameter(2, 0, 100),
        },
        car_rental,
    ),
    "maximization-bias": TableMaker(
        {
            "actions": Parameter(10, 2, 1000, whole=True),
            "mean": Parameter(-0.1, -1e6, 1e6),
            "deviation": Parameter(1, 0, 1e6),
        },
        maximization_bias,
    ),
}
