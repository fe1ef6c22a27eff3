"""Observation tables, each against what the map says."""

import pytest
import torch

import envs
from envs import observation
from envs.observation import ObservationError


def test_index_and_one_hot_number_the_states():
    world = envs.load("garden")
    assert torch.equal(world.observe("index"), torch.arange(44))
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


def test_the_simulator_shows_the_row_of_its_state():
    world = envs.load("frozenlake-8x8")
    worlds = world.simulate(torch.arange(6), observation="planes")
    assert worlds.obs_shape == (5, 8, 8)
    obs = worlds.reset()
    for _ in range(20):
        assert torch.equal(obs, world.observe("planes")[worlds.state])
        obs = worlds.step(torch.full((6,), 2)).obs


@pytest.mark.parametrize("kind", ["coordinates", "planes"])
def test_a_world_without_a_map_has_no_place_to_show(kind: str):
    with pytest.raises(ObservationError, match=rf"^observation '{kind}' needs a map and this world has none, expected"):
        envs.load("Taxi-v4").observe(kind)


def test_unknown_kinds_and_endless_tables_are_refused():
    message = r"^observation 'onehot' is unknown, expected one of index, .*; did you mean 'one-hot'\?$"
    with pytest.raises(ObservationError, match=message):
        envs.load("garden").observe("onehot")
    with pytest.raises(
        ObservationError, match=r"^observation 'one-hot' of 1000000 states would hold 1\.0e\+12 numbers"
    ):
        observation.table("one-hot", 1_000_000, None)
