"""Worlds an agent acts in: explicit tables, stepped in batches, and anything of Gymnasium's beside them.

    world = envs.load("zhao-5x5")                       # tables, map, discount, source
    worlds = world.simulate(streams.keys(0, "world", 64), observation="one-hot")
    obs = worlds.reset()
    step = worlds.step(action)                          # the true successor; nothing resets by itself
    obs = worlds.reset(step.terminated | step.truncated)

| module      | what is in it                                                            |
|-------------|---------------------------------------------------------------------------|
| mdp         | `TabularMDP`; lift: a Gymnasium world's `P` as one                        |
| gridworld   | what a described `Grid` means: its tables (grid, ground, memory, sight)   |
| language    | the TOML and ASCII of grids (cells, rules, making; document, locate)      |
| makers      | worlds that are computed: maze, textbook, car_rental                      |
| catalog     | every world by name                                                       |
| types       | `Step` and `Worlds`, in which worlds and agents speak                     |
| simulator   | any table, N worlds at a time (sampling, stepping, rollout, stride)       |
| mixture     | several worlds of one size as one                                         |
| gymworlds   | any Gymnasium environment                                                 |
| observation | what a state looks like                                                   |
| layout      | the map behind a world; picture: one moment of it (pixels draws it)       |
| render      | a figure of a world: values, policy, visits                               |
| gym         | our worlds as Gymnasium environments; vector: N of them in one            |
"""

from envs.catalog import load, names
from envs.gym import register
from envs.gymworlds import GymWorld
from envs.language.document import WorldError
from envs.lift import lift
from envs.mdp import MDPError, TabularMDP
from envs.mixture import mix
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
    "mix",
    "names",
    "register",
]

register()
