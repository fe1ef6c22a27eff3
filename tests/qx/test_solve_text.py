"""What `qx solve` prints and draws: a map that fits the terminal, and what a map does not say by itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab import console
from qx import solve_report
from qx.main import main

Said = Any


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """The lines that `qx solve` prints in a terminal `wide` columns wide."""

    def run(*args: str, wide: int = 120) -> list[str]:
        monkeypatch.setattr(console.out, "_width", wide)
        assert main(["solve", *args]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def test_a_map_that_is_too_wide_for_values_shows_every_action(said: Said) -> None:
    lines = said("car-rental", wide=80)
    rows = [line.split() for line in lines[2:23]]
    assert lines[1] == "no room for values here: --json gives every one"
    assert [len(row) for row in rows] == [21] * 21
    assert max(map(len, lines[2:23])) <= 80
    assert rows[0][0] == "0"  # of no cars none are moved
    assert (rows[20][0], rows[0][20]) == ("+5", "-4")  # as in figure 4.2
    assert "too large to print here" in said("car-rental", wide=60)[1]
    assert len(said("random-walk-19", wide=40)[1:6]) == 5  # a walk goes on in the next line


def test_what_a_map_does_not_say_is_said(said: Said) -> None:
    lines = said("key-door")
    assert lines[5].split()[4] == "D"
    assert "time limit 640 not counted; --horizon 640 counts it" in lines
    assert "one of the best actions each; --out DIR draws all" in lines
    assert "`.` is never entered" not in lines
    lines = said("windy")
    assert lines[8].split() == ["0", "0", "0", "1", "1", "1", "2", "2", "1", "0"]
    assert "`.` is never entered" in lines
    assert not any("time limit" in line for line in said("key-door", "--horizon", "640"))
    assert not any("one of the best" in line for line in said("t-maze"))
    assert not any("one of the best" in line for line in said("key-door", "--policy", "uniform"))


def test_a_world_without_a_map_or_without_rewards_is_said_so(said: Said, tmp_path: Path) -> None:
    assert "no map: --json gives every value" in said("Taxi-v4")
    assert "3 worlds of 31 states: --json gives every value" in said(
        "maze", "--set", "maze.count=3", "--set", "maze.size=4"
    )
    bare = tmp_path / "bare.toml"
    bare.write_text('map = "S.G"\n')
    assert "every reward is 0: give [reward] goal = 1, for example" in said(str(bare))
    assert not any("every reward" in line for line in said("cliff"))


def test_rounding_leaves_no_return_and_no_sign(said: Said) -> None:
    assert "return 0.000000" in said("random-walk-19", "--policy", "uniform")
    assert not any("-0.00" in line for line in said("random-walk-19", "--policy", "uniform"))
    small = said(
        "cliff", "--set", f"map=S{'.' * 60}G", "--set", "reward.step=0", "--set", "reward.goal=1", "--gamma", "0.5"
    )
    assert "optimal return 8.67362e-19" in small  # 0.5^60: small, but no rounding


def test_a_sum_that_is_no_number_is_a_dash(said: Said, tmp_path: Path) -> None:
    """To and fro for ever between a cell that pays and one that costs."""
    world = tmp_path / "swing.toml"
    world.write_text(
        'map = "SxG"\ndiscount = 1.0\nactions = ["left", "right"]\n[reward]\nforbidden = 1\nstart = -1\ngoal = 0\n'
    )
    policy = tmp_path / "swing.json"
    policy.write_text(json.dumps(["right", "left", None]))
    lines = said(str(world), "--policy", str(policy))
    assert lines[1].split()[:2] == ["-→", "-←"]
    assert "return -" in lines
    assert not any("nan" in line for line in lines)
    assert "where they neither gain nor lose for certain, the sum is no number: -" in lines


def test_a_picture_of_another_world_does_not_stay(said: Said, tmp_path: Path) -> None:
    said("cliff", "--out", str(tmp_path))
    assert (tmp_path / "report.png").exists()
    assert said("Taxi-v4", "--out", str(tmp_path))[-1].endswith("; no map, so no picture")
    assert not (tmp_path / "report.png").exists()


def test_the_actions_of_a_given_policy_are_not_called_best(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []
    monkeypatch.setattr(solve_report, "save", lambda *args: titles.append(args[-1].actions))
    for policy in ([], ["--policy", "uniform"], ["--policy", "epsilon:0.1"]):
        said("gambler", *policy, "--out", str(tmp_path))
    best = "actions, every one as good as the best"
    assert titles == [best, "actions of the policy", best]


@pytest.mark.parametrize("args", [["solve", "four-rooms", "--json"], ["worlds", "--json"], ["solve", "--help"]])
def test_a_reader_that_goes_away_is_no_error(args: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "qx.main", *args],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert ran.returncode in (0, 1)
    assert ran.stderr == ""
