"""Worlds an agent acts in: explicit tables, stepped in batches, and anything of Gymnasium's beside them.

    world = envs.load("zhao-5x5")                       # tables, map, discount, source
    worlds = world.simulate(streams.keys(0, "world", 64), observation="one-hot")
    obs = worlds.reset()
    step = worlds.step(action)                          # the true successor; nothing resets by itself
    obs = worlds.reset(step.terminated | step.truncated)

| module      | what is in it                                                            |
|-------------|---------------------------------------------------------------------------|
| mdp         | `TabularMDP`, and lifting a Gymnasium world's `P` into one                |
| gridworld   | what a described grid means: `Grid` -> `World`                            |
| language    | the TOML and ASCII in which grids are described (document, locate)        |
| catalog     | every world by name                                                       |
| types       | `Step` and `Worlds`, in which worlds and agents speak                     |
| simulator   | any table, N worlds at a time; gymworlds: any Gymnasium environment       |
| observation | what a state looks like                                                   |
| layout      | the map behind a world; picture: one moment of it; render: a figure       |
| gym         | our worlds as Gymnasium environments                                      |
"""

from envs.catalog import load, names
from envs.document import WorldError
from envs.gym import register
from envs.gymworlds import GymWorld
from envs.mdp import MDPError, TabularMDP, lift
from envs.observation import ObservationError
from envs.types import Step, Worlds
from envs.world import World

__all__ = [
    "GymWorld",
    "MDPError",
    "ObservationError",
    "Step",
    "TabularMDP",
    "World",
    "WorldError",
    "Worlds",
    "lift",
    "load",
    "names",
    "register",
]

register()
