"""`qx worlds`: every named world in a line, with the optimum that its source states."""

import json

import pytest

import envs
from lab import console
from qx.main import main


def test_every_world_is_listed_with_its_optimum(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worlds", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = {w["name"]: w for w in json.loads(lines[-1])["worlds"]}
    assert tuple(found) == envs.names()
    table = [line for line in lines[:-1] if line.split(" ")[0] in found]
    assert len(table) == len(found)
    assert max(map(len, table)) <= console.out.width
    for name, listed in found.items():
        world = envs.load(name)
        assert isinstance(world, envs.World)
        assert (listed["states"], listed["actions"]) == (world.mdp.states, world.mdp.actions)
        if world.optimum is not None and world.optimum.discount == world.discount:
            assert listed["optimal_return"] == pytest.approx(world.optimum.value, abs=world.optimum.tolerance + 1e-9)
