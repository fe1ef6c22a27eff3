"""What compiled turns read and write: arrays that share their memory with the tensors of agent, worlds and trainer.

R replicas with W worlds each are N = R W; an entry of E = S A is a pair of state and action.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64


class World(NamedTuple):
    """The dynamics, slot by slot (see `envs.simulator.stepping.Tables`)."""

    actions: tuple[int, ...]
    """A zeros: their number is known as the code is made, and loops over it are none."""
    width: int
    last: Int32[np.ndarray, "slots"]
    """Of nothing, where a pair's slots are equal bins."""
    successor: Int32[np.ndarray, "slots"]
    reward: Float32[np.ndarray, "slots"]
    limit: int
    first_width: int
    first_last: Int64[np.ndarray, "starts"]
    start: Int32[np.ndarray, "starts"]
    seen: Int64[np.ndarray, "S"]
    """The row of the agent's table for each state."""


class Carry(NamedTuple):
    """Where N worlds are (see `envs.simulator.stepping.Carry` and `Roots`); all but the last two change."""

    state: Int32[np.ndarray, "N"]
    elapsed: Int32[np.ndarray, "N"]
    episode: Int64[np.ndarray, "N"]
    clock: Int64[np.ndarray, "N"]
    stream: Int64[np.ndarray, "N"]
    block: Int32[np.ndarray, "N"]


class Learner(NamedTuple):
    """R learners with W worlds each; `q` and `n` change."""

    q: Float64[np.ndarray, "R E"]
    n: Int64[np.ndarray, "R E"]
    power: Float64[np.ndarray, "visits"]
    alpha: float
    gamma: float
    epsilon: Float32[np.ndarray, "T"]
    """Turn by turn."""
    coin: Int64[np.ndarray, "N"]
    """The key of each world's exploration."""
    step: int
    """Steps that each replica has learnt from."""


class Room(NamedTuple):
    """Where the W worlds of a replica meet; a world that is alone needs none."""

    entry: Int64[np.ndarray, "W"]
    error: Float64[np.ndarray, "W"]
    sums: Float64[np.ndarray, "W"]
    there: Int32[np.ndarray, "E"]
    """How many worlds are in each entry; all 0 between two turns."""


class Tally(NamedTuple):
    """What the trainer counts; all of it grows."""

    running: Float64[np.ndarray, "2 N"]
    reward: Float64[np.ndarray, "R"]
    finished: Float64[np.ndarray, "2 R"]
    ended: Int64[np.ndarray, "R"]
    error: Float64[np.ndarray, "R"]
    """The mean absolute errors of all turns, added up."""
