"""`qx solve --json`: the published numbers, values in map order, policies that can be read back, what is not finite."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs
from qx.main import main
from rl import dp
from tests.oracles.dp import dense_value, one_hot

ZHAO = """5.8 5.6 6.2 6.5 5.8  6.5 7.2 8.0 7.2 6.5  7.2 8.0 10. 8.0 7.2  8.0 10. 10. 10. 8.0  7.2 9.0 10. 9.0 8.1"""
SUTTON_38 = "21.98 24.42 21.98 19.42 17.48"
SUTTON_35 = """3.3 8.8 4.4 5.3 1.5  1.5 3.0 2.3 1.9 .5  .1 .7 .7 .4 -.4  -1 -.4 -.4 -.6 -1.2  -1.9 -1.3 -1.2 -1.4 -2"""
SUTTON_41 = "0 -14 -20 -22  -14 -18 -20 -20  -20 -20 -18 -14  -22 -20 -14 0"

Ask = Any


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs `qx solve` with these arguments and returns its JSON."""

    def run(*args: str) -> dict[str, Any]:
        assert main(["solve", *args, "--json"]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def world(name: str) -> envs.World:
    found = envs.load(name)
    assert isinstance(found, envs.World)
    return found


def test_published_tables(ask: Ask) -> None:
    for args, printed, half in (
        (["zhao-5x5", "--gamma", "0.9"], ZHAO, 0.05),
        (["sutton-3.5", "--policy", "uniform"], SUTTON_35, 0.05),
        (["sutton-4.1", "--policy", "uniform"], SUTTON_41, 1e-9),
    ):
        assert np.abs(np.array(ask(*args)["values"]) - np.array(printed.split(), float)).max() <= half + 1e-9
    first = ask("sutton-3.5")["values"][:5]
    assert [f"{v:.2f}" for v in first] == SUTTON_38.split()
    walk = ask("random-walk-5", "--policy", "uniform")["values"][1:-1]
    np.testing.assert_allclose(walk, np.arange(1, 6) / 6)
    gambler = ask("gambler")["values"]
    np.testing.assert_allclose([gambler[25], gambler[50], gambler[75]], [0.16, 0.4, 0.64])


@pytest.mark.parametrize(
    ("name", "steps", "optimum"),
    [("windy", 15, -15.0), ("windy-king", 7, -7.0), ("cliff", 13, -13.0), ("dyna-maze", 14, 0.95**13)],
)
def test_published_lengths_of_the_best_episode(ask: Ask, name: str, steps: int, optimum: float) -> None:
    found = ask(name)
    assert found["steps"] == pytest.approx(steps)
    assert found["optimal_return"] == pytest.approx(optimum)


def test_frozen_lake_and_taxi(ask: Ask) -> None:
    assert ask("FrozenLake-v1")["optimal_return"] == pytest.approx(0.542026, abs=5e-7)
    within = ask("frozenlake-4x4", "--horizon", "100", "--gamma", "1")
    assert round(within["optimal_return"], 4) == 0.7442
    assert within["horizon"] == 100
    assert 0 < within["steps"] < 100
    taxi = ask("Taxi-v4")
    assert taxi["optimal_return"] == pytest.approx(7.93, abs=0.005)
    assert len(taxi["values"]) == len(taxi["policy"]) == taxi["states"] == 500


def test_a_policy_in_so_many_steps_and_the_best_of_the_epsilon_greedy(ask: Ask) -> None:
    lake = world("frozenlake-4x4")
    step = dense_value(lake.mdp, np.full((16, 4), 0.25), 0.0)  # one step
    found = ask("frozenlake-4x4", "--policy", "uniform", "--horizon", "1")
    np.testing.assert_allclose(found["values"], step)
    assert found["return"] == 0.0
    soft = ask("zhao-5x5", "--policy", "epsilon:0.2")
    zhao = world("zhao-5x5")
    chosen = one_hot([zhao.action_names.index(a) for a in soft["policy"]], 5)
    np.testing.assert_allclose(soft["values"], dense_value(zhao.mdp, 0.8 * chosen + 0.04, 0.9), atol=1e-9)
    assert soft["return"] < soft["optimal_return"] == pytest.approx(ask("zhao-5x5")["optimal_return"])
    long = ask("zhao-5x5", "--policy", "epsilon:0.2", "--horizon", "400")
    np.testing.assert_allclose(long["values"], soft["values"], atol=1e-9)


@pytest.mark.parametrize("name", ["zhao-5x5", "four-rooms", "key-door", "t-maze", "Taxi-v4", "blocking-maze"])
def test_a_policy_that_was_written_is_read_again(ask: Ask, tmp_path: Path, name: str) -> None:
    first = ask(name, "--out", str(tmp_path / "out"))
    file = tmp_path / "out" / "result.json"
    assert json.loads(file.read_text()) == first
    again = ask(name, "--policy", str(file))
    np.testing.assert_allclose(again["return"], first["optimal_return"], atol=1e-9)
    assert again["values"] == pytest.approx(first["values"], nan_ok=True)
    drawn = tmp_path / "out" / "report.png"
    assert drawn.exists() == (name != "Taxi-v4")


def test_the_best_epsilon_greedy_policy_is_read_again_with_its_epsilon(ask: Ask, tmp_path: Path) -> None:
    first = ask("cliff", "--policy", "epsilon:0.1", "--out", str(tmp_path / "out"))
    again = ask("cliff", "--policy", str(tmp_path / "out" / "result.json"))
    assert first["return"] < first["optimal_return"] == -13
    np.testing.assert_allclose(again["return"], first["return"], atol=1e-9)
    assert again["values"] == pytest.approx(first["values"])
    assert ask("cliff", "--policy", "epsilon:0")["return"] == -13


def test_what_json_prints_below_the_table_is_read_as_it_was_redirected(
    ask: Ask, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", "windy", "--json"]) == 0
    file = tmp_path / "windy.json"
    file.write_text(capsys.readouterr().out)
    assert not file.read_text().startswith("{")
    assert ask("windy", "--policy", str(file))["return"] == pytest.approx(-15)


def test_a_policy_in_each_of_its_forms(ask: Ask, tmp_path: Path) -> None:
    zhao, file = world("zhao-5x5"), tmp_path / "pi.json"
    rng = np.random.default_rng(0)
    for given, probs in (
        ([2] * 25, one_hot([2] * 25, 5)),
        ({"policy": ["down"] * 25}, one_hot([2] * 25, 5)),
        ([["down"] * 5] * 5, one_hot([2] * 25, 5)),  # in the shape of the map
        ([[[0.1, 0.2, 0.3, 0.4, 0]] * 5] * 5, np.tile([0.1, 0.2, 0.3, 0.4, 0], (25, 1))),
        ([2.0] * 25, one_hot([2] * 25, 5)),  # as numpy writes it
        ([{"up": 0.5, "stay": 0.5}] * 25, np.tile([0.5, 0, 0, 0, 0.5], (25, 1))),
        (rows := rng.dirichlet(np.ones(5), 25).tolist(), np.array(rows)),
        ([0, "stay", *rows[2:]], np.array([*one_hot([0, 4], 5).tolist(), *rows[2:]])),
    ):
        file.write_text(json.dumps(given))
        np.testing.assert_allclose(
            ask("zhao-5x5", "--policy", str(file))["values"], dense_value(zhao.mdp, probs, 0.9), atol=1e-9
        )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([0] * 24, ["24 entries", "expected 25"]),
        ([0] * 24 + ["dwon"], ["entry 24", '"dwon"', "did you mean 'down'?"]),
        ([0] * 24 + [5], ["entry 24 is 5", "0 to 4"]),
        ([0] * 24 + [[0.5, 0.5]], ["entry 24", "5 chances"]),
        ([0] * 24 + [[0.5, 0.6, 0, 0, 0]], ["entry 24", "sum to 1"]),
        ([0] * 24 + [None], ["entry 24 is null"]),
        ({"pi": []}, ["no list of actions"]),
    ],
)
def test_a_policy_that_does_not_fit_is_refused_by_its_entry(
    given: Any, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pi.json"
    file.write_text(json.dumps(given))
    assert main(["solve", "zhao-5x5", "--policy", str(file), "--out", str(tmp_path / "out")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--policy", "unifrom"], ["--policy unifrom", "did you mean 'uniform'?"]),
        (["--policy", "epsilon:2"], ["epsilon:2", "from 0 to 1"]),
        (["--horizon", "0"], ["--horizon 0", "at least 1"]),
        (["--horizon", "1000000000"], ["--horizon 1000000000", "at most"]),
        (["--gamma", "1"], ["gamma 1.0", "take gamma < 1"]),
    ],
)
def test_a_question_without_an_answer_is_one_line(
    args: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", "zhao-5x5", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line


def test_what_is_not_finite_is_null_and_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Going left in a cliff world for ever: -1 a step without end."""
    file = tmp_path / "left.json"
    file.write_text(json.dumps(["left"] * 48))
    args = ["solve", "cliff", "--policy", str(file), "--out", str(tmp_path / "out"), "--json"]
    assert main(args) == 0
    said = capsys.readouterr().out
    found = json.loads(said.splitlines()[-1], parse_constant=pytest.fail)
    assert found["return"] is None
    assert found["steps"] is None
    assert found["optimal_return"] == -13
    assert found["values"][0] is None
    assert "no finite value at gamma 1" in said
    assert (tmp_path / "out" / "report.png").exists()


def test_values_are_null_in_walls_and_in_gates_that_never_open(ask: Ask) -> None:
    rooms, maze = world("four-rooms"), world("blocking-maze")
    assert rooms.layout is not None
    walls = "".join(rooms.layout.glyphs)
    assert [v is None for v in ask("four-rooms")["values"]] == [glyph == "#" for glyph in walls]
    values = ask("blocking-maze")["values"]
    assert maze.mdp.states == 47
    assert sum(v is not None for v in values) == 46
    assert values[3 * 9] is None
    assert values[3 * 9 + 8] is not None


def test_every_mode_has_its_values(ask: Ask) -> None:
    found, door = ask("key-door"), world("key-door")
    assert door.layout is not None
    assert [m["mode"] for m in found["modes"]] == list(door.layout.modes)
    assert found["values"] == found["modes"][0]["values"]
    truth = dp.value_iteration(door.mdp, 0.99, 1e-12).values
    for m, mode in enumerate(found["modes"]):
        for cell, value in enumerate(mode["values"]):
            if value is not None:
                state = int(door.layout.states[m].flatten()[cell])
                assert value == pytest.approx(float(truth[state]), abs=1e-9)


def test_large_worlds_are_solved_by_value_iteration_with_a_bound(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ask("four-rooms")
    monkeypatch.setattr("qx.answer.SMALL", 10)
    large = ask("four-rooms")
    assert small["method"].startswith("policy iteration")
    assert large["method"].startswith("value iteration")
    assert 0 <= large["error_bound"] <= 1e-10
    both = [[v for v in found["values"] if v is not None] for found in (small, large)]
    np.testing.assert_allclose(*both, atol=1e-9)
    torch.testing.assert_close(large["steps"], small["steps"])
