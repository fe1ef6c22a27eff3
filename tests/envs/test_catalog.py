"""Every world by name, and a nearest name for one that is not there."""

import re
from pathlib import Path

import gymnasium
import pytest
import torch

import envs
from envs.language.document import WorldError


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("zoa-5x5", "'zhao-5x5'"),
        ("four_rooms", "'four-rooms'"),
        ("cartpole", "'CartPole-v1'"),
        ("frozenlake", "'frozenlake-4x4'"),
        ("FrozenLake-v9", "'FrozenLake.*-v1'"),
        ("quincunx/Clif-v0", "'quincunx/[cC]liff-v0'"),
    ],
)
def test_an_unknown_world_names_the_nearest(name: str, nearest: str):
    with pytest.raises(WorldError) as caught:
        envs.load(name)
    message = rf"world '{name}' is unknown; did you mean {nearest}\? `qx worlds` lists the names there are; .*"
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


@pytest.mark.parametrize("name", ["", "qqqqqqqq", "no:Such-v0", "a/b", "x" * 300, "two words"])
def test_nonsense_is_one_line_too(name: str):
    with pytest.raises(WorldError, match=r"^world '.*' is unknown; `qx worlds` lists the names .*") as caught:
        envs.load(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("Pendulum-v1", {}, r"^Pendulum-v1: its actions are Box\(.*\), expected Discrete"),
        (
            "FrozenLake-v1",
            {"slippery": "false"},
            r"^FrozenLake-v1: Gymnasium cannot make it with .*slippery.*TypeError",
        ),
        ("FrozenLake-v1", {"map_name": "9x9"}, r"^FrozenLake-v1: Gymnasium cannot make it with .*KeyError: '9x9'$"),
        ("CartPole-v1", {"discount": "2"}, r"^CartPole-v1: override discount=2: expected a number from 0 to 1$"),
        ("CartPole-v1", {"time_limit": "soon"}, r"^CartPole-v1: override time_limit=soon: expected a number of steps"),
        (
            "CartPole-v1",
            {"time_limit": 2**31},
            r"^CartPole-v1: override time_limit=2147483648: expected a number of steps, 1 to 2147483647, or \"none\"$",
        ),
        (
            "CartPole-v1",
            {"discount": "[" * 5000},
            r"^override \[{20}\.\.\. is nested too deeply, expected a value of TOML$",
        ),
        (
            "cliff",
            {"reward.clif": "1"},
            r"cliff\.toml: override reward\.clif=1: key 'clif' in reward is unknown.*'cliff'",
        ),
    ],
)
def test_what_cannot_be_made_says_why(name: str, overrides: dict[str, str], message: str):
    with pytest.raises(WorldError, match=message):
        envs.load(name, overrides)


def test_a_world_with_dynamics_is_lifted_with_its_map_and_limit():
    lake = envs.load("FrozenLake-v1")
    assert (lake.name, lake.time_limit, lake.discount) == ("FrozenLake-v1", 100, 0.99)
    assert lake.layout.glyphs == ("SFFF", "FHFH", "FFFH", "HFFG")
    assert lake.layout.shows("hole").nonzero().tolist() == [[1, 1], [1, 3], [2, 3], [3, 0]]
    assert lake.action_names == ("left", "down", "right", "up")
    cliff = envs.load("CliffWalking-v1")
    assert cliff.layout.glyphs == ("." * 12, "." * 12, "." * 12, "S" + "C" * 10 + "G")
    taxi = envs.load("Taxi-v4")
    assert (taxi.layout, taxi.mdp.states, len(taxi.action_names)) == (None, 500, 6)
    assert [envs.load(name).discount for name in ("Taxi-v4", "CliffWalking-v1", "CliffWalkingSlippery-v1")] == [1] * 3
    assert envs.load("Taxi-v4", {"discount": "0.9"}).discount == 0.9


class Coin(gymnasium.Env):
    """Two states in a P of lists: heads leads on, tails ends."""

    observation_space, action_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(1)
    P = ([[(0.5, 1, 1.0, False), (0.5, 0, 0.0, True)]], [[(1.0, 1, 0.0, True)]])
    initial_state_distrib = (0.25, 0.75)


def test_a_world_of_somebody_elses_is_lifted_too():
    gymnasium.register("Coin-v0", Coin, max_episode_steps=7)
    try:
        coin = envs.load("Coin-v0")
    finally:
        del gymnasium.registry["Coin-v0"]
    assert isinstance(coin, envs.World)
    assert (coin.discount, coin.time_limit, coin.layout, coin.action_names) == (0.99, 7, None, ("0",))
    assert coin.mdp.start.tolist() == [0.25, 0.75]
    assert coin.mdp.next_state.tolist() == [[[1, 0]], [[1, 1]]]


def test_parameters_of_a_maker_are_overrides_like_others(tmp_path: Path):
    maze = envs.load("maze", {"maze.size": "4", "maze.seed": 9, "reward.goal": "3"})
    assert (len(maze.layout.glyphs), maze.mdp.reward.max().item()) == (9, 3)
    file = tmp_path / "corridor.toml"
    file.write_text('make = "t-maze"\n[cell.junction]\nglyph = "+"\n[cell.n]\nglyph = "n"\n[cell.s]\nglyph = "s"\n')
    assert envs.load(file, {"t-maze.length": 3}).layout.glyphs[2] == "#S..+#"
    several = envs.load("maze", {"maze.size": 4, "maze.seed": 9, "maze.count": 3})
    assert (several.blocks, several.mdp.states) == (3, 3 * 31)
    assert torch.equal(several.mdp.next_state[:31], envs.load("maze", {"maze.size": 4, "maze.seed": 9}).mdp.next_state)
    last = envs.load("maze", {"maze.size": 4, "maze.seed": 11}).mdp.next_state
    assert torch.equal(several.mdp.next_state[62:] - 62, last)
    with pytest.raises(WorldError, match=r"maze\.toml: override maze\.size=1: "):
        envs.load("maze", {"maze.size": "1"})


def test_overrides_of_a_gymnasium_world_reach_its_constructor():
    dry = envs.load("FrozenLake-v1", {"is_slippery": "false", "discount": "0.9", "time_limit": "none"})
    assert (dry.mdp.outcomes, dry.discount, dry.time_limit) == (1, 0.9, None)
    assert envs.load("FrozenLake-v1", {"map_name": "8x8"}).mdp.states == 64
    moonlike = envs.load("CartPole-v1", {"sutton_barto_reward": "true"})
    worlds = moonlike.simulate(torch.tensor([1]))
    worlds.reset()
    assert worlds.step(torch.tensor([0])).reward.item() == 0.0


def test_a_changed_world_has_no_known_optimum():
    assert envs.load("maze").optimum is not None
    assert envs.load("maze", {"time_limit": 100}).optimum is not None
    for changed in ({"maze.size": 11}, {"discount": 0.9}, {"reward.goal": 2, "time_limit": 100}):
        assert envs.load("maze", changed).optimum is None, changed


def test_our_own_id_is_our_own_world():
    ours = envs.load("quincunx/FourRooms-v0", {"reward.goal": "7"})
    assert (ours.name, ours.mdp.reward.max().item()) == ("four-rooms", 7)


def test_a_wrapped_table_is_not_mistaken_for_the_world():
    """An environment that changes what it shows of a table world is stepped as it is."""
    gymnasium.register(
        "OneHotLake-v0",
        lambda **kw: gymnasium.wrappers.FlattenObservation(gymnasium.make("FrozenLake-v1", **kw)),
    )
    try:
        assert isinstance(envs.load("OneHotLake-v0"), envs.GymWorld)
    finally:
        del gymnasium.registry["OneHotLake-v0"]
