"""Observation tables, each against what the map says, looked up cell by cell."""

from dataclasses import replace

import pytest
import torch

import envs
from envs import observation
from envs.layout import LOOKS, Layout
from envs.observation import ObservationError
from envs.pixels import mosaic
from rl import agents
from rl.recipes.deep import build_dqn
from rl.train import TrainConfig, Trainer


def key_room() -> Layout:
    """Start, key, door and goal in a row below a wall: with the key on the map, taken, and the door open."""
    rows = ("####", "SkDG")
    looks = [[["wall"] * 4, ["start", key, door, "goal"]] for key, door in (("key", "door"), ("floor", "door"))]
    looks.append([["wall"] * 4, ["start", "floor", "floor", "goal"]])
    held = torch.tensor([0.0, 1.0, 0.0]).repeat_interleave(4)[:, None]
    return Layout(
        glyphs=rows,
        look=torch.tensor([[[LOOKS.index(look) for look in row] for row in mode] for mode in looks]),
        cell=torch.tensor([[1, col] for col in range(4)]).repeat(3, 1),
        mode=torch.arange(3).repeat_interleave(4),
        modes=("", "red key", "red door open"),
        badges=held,
        badge_names=("red key",),
    )


def looks_around(layout: Layout, state: int, reach: int) -> list[list[str]]:
    """The looks of the cells around a state's, one at a time."""
    row, col = layout.cell[state].tolist()
    look = layout.look[layout.mode[state]]
    return [
        [
            LOOKS[look[y, x]] if 0 <= y < layout.rows and 0 <= x < layout.cols else "wall"
            for x in range(col - reach, col + reach + 1)
        ]
        for y in range(row - reach, row + reach + 1)
    ]


def test_index_state_and_one_hot_number_the_states():
    world = envs.load("garden")
    assert torch.equal(world.observe("index"), torch.arange(44))
    assert torch.equal(world.observe("state"), torch.arange(44))
    assert torch.equal(world.observe("one-hot").argmax(1), torch.arange(44))
    assert world.observe("one-hot").sum() == 44


def test_coordinates_run_from_minus_one_to_one():
    world = envs.load("garden")  # 7 rows, 8 columns
    seen = world.observe("coordinates")
    assert seen.dtype == torch.float32
    assert seen[0].tolist() == [-1, -1]
    assert seen[-1].tolist() == [1, 1]
    for (row, col), (y, x) in zip(world.layout.cell.tolist(), seen.tolist(), strict=True):
        assert (y, x) == pytest.approx((row / 3 - 1, col / 3.5 - 1), abs=1e-6)
    single = envs.load("cliff", {"map": "S"}).observe("coordinates")
    assert single.tolist() == [[0, 0]]
    held = observation.table("coordinates", 12, key_room())
    assert held[:, 2].tolist() == [0] * 4 + [1] * 4 + [0] * 4


def test_planes_show_the_agent_and_the_map():
    world = envs.load("garden")
    planes = world.observe("planes")
    assert (planes.shape, planes.dtype) == ((44, 5, 7, 8), torch.float32)
    for state, (row, col) in enumerate(world.layout.cell.tolist()):
        assert planes[state, 0].nonzero().tolist() == [[row, col]]
    rows = ["".join(row) for row in world.layout.glyphs]
    for plane, glyph in enumerate("#GxH", 1):
        drawn = torch.tensor([[float(g == glyph) for g in row] for row in rows])
        assert (planes[:, plane] == drawn).all()


def test_planes_show_keys_and_doors_while_they_are_there_and_what_is_held():
    layout = key_room()
    planes = observation.table("planes", 12, layout)
    assert planes.shape == (12, 1 + 4 + 2 + 1, 2, 4)  # agent; wall, goal, forbidden, hole; key, door; the badge
    for state in range(12):
        for row in range(2):
            for col in range(4):
                names = ("wall", "goal", "forbidden", "hole", "key", "door")
                seen = dict(zip(names, planes[state, 1:7, row, col], strict=True))
                look = LOOKS[layout.look[layout.mode[state], row, col]]
                assert all(value == (name == look) for name, value in seen.items())
        assert (planes[state, 7] == (4 <= state < 8)).all()


@pytest.mark.parametrize("side", [1, 3, 5, 15])
def test_a_window_is_what_lies_around_the_agent(side: int):
    world = envs.load("garden")
    window = world.observe(f"window-{side}")
    assert (window.shape, window.dtype) == ((44, 4, side, side), torch.float32)
    for state in range(44):
        around = looks_around(world.layout, state, side // 2)
        for plane, look in enumerate(("wall", "goal", "forbidden", "hole")):
            assert window[state, plane].tolist() == [[float(one == look) for one in row] for row in around]


def test_a_window_has_the_mode_and_the_badge_too():
    layout = key_room()
    window = observation.table("window-3", 12, layout)
    names = ("wall", "goal", "forbidden", "hole", "key", "door")
    for state in range(12):
        around = looks_around(layout, state, 1)
        for plane, look in enumerate(names):
            assert window[state, plane].tolist() == [[float(one == look) for one in row] for row in around]
        assert (window[state, 6] == (4 <= state < 8)).all()


@pytest.mark.parametrize("layout", [envs.load("garden").layout, key_room(), envs.load("cliff").layout])
def test_rgb_is_the_picture_of_each_state(layout: Layout):
    states = len(layout.cell)
    rgb = observation.table("rgb", states, layout)
    pixels = rgb.shape[3] // layout.cols
    assert rgb.dtype == torch.uint8
    assert min(rgb.shape[2:]) >= 36
    assert pixels >= 8
    for state in range(states):
        assert torch.equal(rgb[state].permute(1, 2, 0), torch.from_numpy(mosaic.paint(layout, state, pixels)))
    assert len(rgb.flatten(1).unique(dim=0)) == states


@pytest.mark.parametrize("kind", ["index", "one-hot", "coordinates", "planes", "window-3", "rgb"])
def test_states_that_look_alike_have_the_row_of_the_first(kind: str):
    layout = key_room()
    plain = observation.table(kind, 12, layout)
    alike = torch.tensor([0, 0, 0, 3, 4, 4, 4, 7, 8, 9, 9, 11])
    seen = observation.table(kind, 12, replace(layout, alike=alike))
    for state in range(12):
        assert torch.equal(seen[state], plain[alike[state]])
    assert torch.equal(observation.table("state", 12, replace(layout, alike=alike)), torch.arange(12))


def test_the_bounds_hold_every_number():
    for kind in ("one-hot", "coordinates", "planes", "window-3", "rgb"):
        low, high = observation.bounds(kind)
        for table in (envs.load("garden").observe(kind), observation.table(kind, 12, key_room())):
            assert low <= float(table.min())
            assert float(table.max()) <= high


def test_the_simulator_shows_the_row_of_its_state():
    world = envs.load("frozenlake-8x8")
    worlds = world.simulate(torch.arange(6), observation="planes")
    assert worlds.obs_shape == (5, 8, 8)
    obs = worlds.reset()
    for _ in range(20):
        assert torch.equal(obs, world.observe("planes")[worlds.state])
        obs = worlds.step(torch.full((6,), 2)).obs


@pytest.mark.parametrize("kind", ["coordinates", "planes", "window-3", "rgb"])
def test_a_world_without_a_map_has_no_place_to_show(kind: str):
    with pytest.raises(ObservationError, match=rf"^observation '{kind}' needs a map and this world has none, expected"):
        envs.load("Taxi-v4").observe(kind)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("onehot", r"is unknown, expected one of index, .*, window-K .*; did you mean 'one-hot'\?$"),
        ("window", r"is unknown, .*window-K with K odd; did you mean 'window-"),
        ("window-0", r"has a side of 0, expected an odd number from 1 to 15$"),
        ("window-4", r"has a side of 4, expected an odd number from 1 to 15$"),
        ("window-17", r"has a side of 17, expected an odd number from 1 to 15$"),
        ("window--3", r"is unknown, "),
        ("window-99999999999", r"is unknown, |has a side of 99999999999"),
    ],
)
def test_kinds_that_do_not_exist_are_refused(kind: str, message: str):
    with pytest.raises(ObservationError, match=rf"^observation '{kind}' {message}"):
        envs.load("garden").observe(kind)


@pytest.mark.parametrize("kind", ["one-hot", "planes", "window-9", "rgb"])
def test_endless_tables_are_refused_before_they_are_made(kind: str):
    states = 100_000_000
    cell, mode = (
        torch.zeros(1, 2).long().expand(states, 2),
        torch.zeros(1).long().expand(states),
    )  # no memory of their own
    layout = replace(envs.load("garden").layout, cell=cell, mode=mode)
    with pytest.raises(
        ObservationError, match=rf"^observation '{kind}' of {states} states would take .* GiB, expected"
    ):
        observation.table(kind, states, layout if kind != "one-hot" else None)


def test_the_labs_dqn_reads_pictures_as_bytes_scaled_once():
    """A byte picture and the same in [0, 1] have the same values, and a step of learning from bytes is a step."""
    config = replace(agents.defaults("dqn", "garden")[0], observation="rgb", learning_starts=8, capacity=64)
    world = envs.load("cliff", {"map": "S.\n.G"})
    agent = build_dqn(config, world, 1, 0)
    seen = world.observe("rgb")
    assert torch.equal(agent.q_values(seen), agent.q_values(seen.float() / 255))
    before = agent.q_values(seen)
    worlds = agents.simulate("dqn", config, world, replicas=1, worlds=8, seed=0)
    for _ in Trainer(agent, worlds, TrainConfig(steps=32)).run():
        pass
    assert agent.replay.storage["obs"].dtype == torch.uint8
    assert not torch.equal(agent.q_values(seen), before)
