"""The vector environment against Gymnasium's own SyncVectorEnv of the same world, number by number."""

import copy
import pickle
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import envs
from envs.gym import GridWorldEnv, gymnasium_ids
from envs.vector import GridWorldVectorEnv

N = 5


def same(ours: Any, theirs: Any) -> None:
    """Equal in type, dtype, shape and every number, all the way down."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for key in ours:
            same(ours[key], theirs[key])
    elif isinstance(ours, tuple) or (isinstance(ours, np.ndarray) and ours.dtype == object):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif isinstance(ours, np.ndarray):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours == theirs


def pair(name: str, mode: AutoresetMode, **arguments: Any) -> tuple[VectorEnv, VectorEnv]:
    one = gymnasium_ids(name)[0]
    ours = gymnasium.make_vec(one, N, "vector_entry_point", autoreset_mode=mode, **arguments)
    theirs = gymnasium.make_vec(one, N, "sync", vector_kwargs={"autoreset_mode": mode}, **arguments)
    return ours, theirs


def walk_both(ours: VectorEnv, theirs: VectorEnv, steps: int, seed: int) -> int:
    """Random actions in both, all that comes back compared. Returns how many episodes ended."""
    rng, ended = np.random.default_rng(seed), 0
    for _ in range(steps):
        actions = rng.integers(theirs.single_action_space.n, size=theirs.num_envs)
        mine, other = ours.step(actions), theirs.step(actions)
        same(mine, other)
        done = other[2] | other[3]
        ended += int(done.sum())
        if theirs.metadata["autoreset_mode"] == AutoresetMode.DISABLED and done.any():
            same(ours.reset(options={"reset_mask": done.copy()}), theirs.reset(options={"reset_mask": done.copy()}))
    return ended


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("garden", {"max_episode_steps": 20}),  # slips, ends in holes and goal, and a short limit
        ("garden", {"observation": "planes"}),
        ("frozenlake-4x4", {}),
        ("four-rooms", {"observation": "coordinates"}),  # begins anywhere
        ("cliff", {"max_episode_steps": 30, "observation": "rgb"}),
        ("zhao-5x5", {"max_episode_steps": 1, "observation": "window-3"}),
        ("frozenlake-8x8", {"max_episode_steps": -1, "observation": "one-hot"}),
    ],
)
def test_it_is_gymnasiums_own_number_by_number(name: str, arguments: dict[str, Any], mode: AutoresetMode):
    ours, theirs = pair(name, mode, **arguments)
    assert isinstance(ours, GridWorldVectorEnv)
    assert isinstance(theirs, SyncVectorEnv)
    for attribute in (
        "observation_space",
        "action_space",
        "single_observation_space",
        "single_action_space",
        "metadata",
    ):
        assert getattr(ours, attribute) == getattr(theirs, attribute)
    assert (ours.num_envs, ours.render_mode) == (theirs.num_envs, theirs.render_mode)
    same(ours.reset(seed=3), theirs.reset(seed=3))
    ended = walk_both(ours, theirs, 250, seed=0)
    assert ended > 10 or name in ("cliff", "four-rooms")
    same(ours.reset(), theirs.reset())  # each world's next episode
    walk_both(ours, theirs, 20, seed=1)
    same(ours.reset(seed=[8, 8, 2, None, 0]), theirs.reset(seed=[8, 8, 2, None, 0]))
    assert ours.np_random_seed == theirs.np_random_seed
    walk_both(ours, theirs, 20, seed=2)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_limit_reached_in_the_step_that_ends_the_world_sets_both_flags(mode: AutoresetMode):
    """As Gymnasium's TimeLimit does; the simulator, for the agents of this house, sets one."""
    world = envs.load("cliff", {"map": "SG"})
    ours = GridWorldVectorEnv(world, N, max_episode_steps=1, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: TimeLimit(GridWorldEnv(world), 1)] * N, autoreset_mode=mode)
    same(ours.reset(seed=0), theirs.reset(seed=0))
    actions = np.array([0, 1, 2, 3, 1])
    mine = ours.step(actions)
    same(mine, theirs.step(actions))
    right = actions == world.action_names.index("right")
    assert mine[3].all()
    assert mine[2].tolist() == right.tolist()


@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_reset_of_some_is_gymnasiums_own(mode: AutoresetMode):
    ours, theirs = pair("garden", mode, max_episode_steps=8)
    same(ours.reset(seed=1), theirs.reset(seed=1))
    rng = np.random.default_rng(5)
    for turn in range(12):
        if mode != AutoresetMode.DISABLED:
            walk_both(ours, theirs, 5, seed=turn)
        mask = rng.random(N) < 0.5
        mask[turn % N] = True
        seed = [None, int(rng.integers(99)), [int(s) if s < 50 else None for s in rng.integers(100, size=N)]][turn % 3]
        given = {"reset_mask": mask.copy()}, {"reset_mask": mask.copy()}
        same(ours.reset(seed=seed, options=given[0]), theirs.reset(seed=seed, options=given[1]))
        walk_both(ours, theirs, 3, seed=turn)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_of_a_mixture_each_episode_is_in_one_of_its_worlds(mode: AutoresetMode):
    """Not in the same one for ever, as in the simulator: that way one environment shows all of them."""
    arguments = {"overrides": {"maze.size": "2", "maze.count": "3"}, "max_episode_steps": 5, "observation": "planes"}
    ours, theirs = pair("maze", mode, **arguments, render_mode="ansi")
    same(ours.reset(seed=0), theirs.reset(seed=0))
    maps = set()
    for turn in range(8):
        walk_both(ours, theirs, 5, seed=turn)
        same(ours.render(), theirs.render())
        maps |= {one.replace("@", ".").replace("S", ".") for one in ours.render()}
    worlds = ours.world.parts
    assert maps == {"\n".join(map(" ".join, part.layout.glyphs)).replace("S", ".") for part in worlds}
    assert len(maps) == 3


def test_a_world_is_the_same_however_many_ride_along():
    few, many = GridWorldVectorEnv("four-rooms", 2), GridWorldVectorEnv("four-rooms", 7)
    rng = np.random.default_rng(0)
    assert few.reset(seed=4)[0].tolist() == many.reset(seed=4)[0].tolist()[:2]
    for _ in range(300):
        actions = rng.integers(4, size=7)
        for one, other in zip(few.step(actions[:2])[:4], many.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(one, other[:2])


def test_rewards_that_float32_cannot_tell_apart_or_hold_are_told_alike():
    """-0.1 is -0.1, and two rewards that are one in float32 are one in both faces."""
    world = envs.load("cliff", {"reward.step": "-0.1", "reward.bump": "-0.1000000001", "map": "S.G"})
    ours, theirs = GridWorldVectorEnv(world, 4), SyncVectorEnv([lambda: GridWorldEnv(world)] * 4)
    ours.reset(seed=0), theirs.reset(seed=0)
    for action in (0, 3, 1):
        mine, other = ours.step(np.full(4, action)), theirs.step(np.full(4, action))
        same(mine, other)
        assert abs(mine[1] + 0.1).max() < 1e-9


@pytest.mark.parametrize("name", envs.names())
def test_every_world_is_made_in_every_way(name: str):
    """Both ids, both ways to be many, without a warning, and they walk alike."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for one in gymnasium_ids(name):
            ours = gymnasium.make_vec(one, num_envs=2)
            assert isinstance(ours.unwrapped, GridWorldVectorEnv)
            theirs = gymnasium.make_vec(one, num_envs=2, vectorization_mode="sync")
            same(ours.reset(seed=11), theirs.reset(seed=11))
            walk_both(ours, theirs, 60, seed=0)
            assert ours.spec.id == one
            ours.close(), theirs.close()


def test_processes_walk_alike():
    ours = gymnasium.make_vec("quincunx/Garden-v0", 2)
    theirs = gymnasium.make_vec("quincunx/Garden-v0", 2, vectorization_mode="async", vector_kwargs={"context": "fork"})
    same(ours.reset(seed=3), theirs.reset(seed=3))
    for action in (3, 3, 1, 1, 2):
        same(ours.step(np.full(2, action)), theirs.step(np.full(2, action)))
    theirs.close()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_a_copy_goes_on_alike(mode: AutoresetMode, again: Any):
    env = gymnasium.make_vec("quincunx/Garden-v0", N, autoreset_mode=mode, observation="planes", max_episode_steps=9)
    env.reset(seed=5)
    for _ in range(6):
        env.step(np.full(N, 1))
    twin = again(env)
    walk_both(env, twin, 120, seed=0)
    same(env.reset(), twin.reset())


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_every_world_is_rendered(mode: str):
    ours, theirs = pair("garden", AutoresetMode.NEXT_STEP, render_mode=mode)
    ours.reset(seed=0), theirs.reset(seed=0)
    walk_both(ours, theirs, 5, seed=0)
    same(ours.render(), theirs.render())


def test_gymnasiums_wrappers_take_it():
    ours, theirs = pair("garden", AutoresetMode.SAME_STEP, max_episode_steps=6)
    ours, theirs = RecordEpisodeStatistics(ours), RecordEpisodeStatistics(theirs)
    same(ours.reset(seed=0), theirs.reset(seed=0))
    for _ in range(30):
        mine, other = ours.step(np.full(N, 1)), theirs.step(np.full(N, 1))
        same(mine[:4], other[:4])
        assert mine[4].keys() == other[4].keys()
        if "episode" in mine[4]:
            np.testing.assert_array_equal(mine[4]["episode"]["r"], other[4]["episode"]["r"])


def test_without_a_seed_it_is_new_each_time():
    walks = []
    for _ in range(2):
        env = GridWorldVectorEnv("four-rooms", 64)
        walks.append(env.reset()[0].tolist())
        assert len(set(walks[-1])) > 1
    assert walks[0] != walks[1]


def test_worlds_without_seeds_tell_those_they_took():
    """And keep them where others are given some."""
    ours = GridWorldVectorEnv("frozenlake-8x8", N)
    first, _ = ours.reset(seed=[None, 7, None, None, 8])
    seeds = ours.np_random_seed
    assert (seeds[1], seeds[4], len(set(seeds))) == (7, 8, N)
    theirs = SyncVectorEnv([lambda: GridWorldEnv("frozenlake-8x8")] * N)
    same(first, theirs.reset(seed=list(seeds))[0])
    assert ours.np_random_seed == theirs.np_random_seed
    walk_both(ours, theirs, 60, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": "CartPole-v1"}, r"^CartPole-v1 has no tables"),
        ({"num_envs": 0}, r"^num_envs is 0, expected at least 1$"),
        ({"max_episode_steps": 0}, r"^max_episode_steps is 0, expected at least 1, or -1 for no limit$"),
        ({"render_mode": "human"}, r"^render_mode is 'human', expected None, 'ansi', 'rgb_array'$"),
        ({"overrides": {"time_limit": 4}}, r"^an override of time_limit"),
        ({"autoreset_mode": "Never"}, r"'Never' is not a valid AutoresetMode"),
    ],
)
def test_what_cannot_be_made_says_why(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        GridWorldVectorEnv(**arguments)


def test_what_cannot_be_done_says_why():
    env = GridWorldVectorEnv("garden", 3, autoreset_mode="Disabled", max_episode_steps=2, render_mode="ansi")
    mask = np.array([True, False, False])
    for early in (lambda: env.step(np.zeros(3, int)), env.render, lambda: env.reset(options={"reset_mask": mask})):
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"^the worlds have not begun: "):
            early()
    with pytest.raises(ValueError, match=r"^2 seeds are given, expected one for each of 3 worlds$"):
        env.reset(seed=[1, 2])
    with pytest.raises(ValueError, match=r"^seed 1 is -1, expected a whole number from 0$"):
        env.reset(seed=[0, -1, 3])
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"^action 1 is 4, expected 0 to 3$"):
        env.step(np.array([0, 4, 0]))
    for wrong in (np.zeros(2, int), np.zeros(3)):
        with pytest.raises(ValueError, match=r"^actions are \w+ \[\d\], expected integers \[3\]$"):
            env.step(wrong)
    for mask, error in ((np.zeros(3, bool), ValueError), (np.ones(2, bool), ValueError), (np.ones(3), TypeError)):
        with pytest.raises(error, match=r"^reset_mask "):
            env.reset(options={"reset_mask": mask})
    env.step(np.zeros(3, int))
    env.step(np.zeros(3, int))
    with pytest.raises(AssertionError, match=r"^world 0 has ended, expected a reset with a reset_mask before a step$"):
        env.step(np.zeros(3, int))
