"""What the picture of a trained agent says: ties, what its curve is of, and where there is no number to draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import envs
from lab import console, plots
from lab.run import Run
from qx import agent_report
from rl import agents
from rl.evaluate import PREDICTION


def made(path: Path, values: list[float | None]) -> Run:
    """A run of two replicas with these values and returns, a line each."""
    run = Run.create(path, "train", {}, 0)
    for step, value in enumerate(values, 1):
        both = torch.tensor([float("-inf") if value is None else value] * 2)
        run.log(100 * step, {"value": both, "return": torch.tensor([-9.0, -7.0])})
    return run


def curve(run: Run, measure: str, never: int = 0) -> Any:
    """The axes with the learning curve."""
    _, [ax] = plots.figure()
    result = {"optimal_return": -3.0, "returns": [-4.0, -4.0], "measure": measure, "never_arrive": never}
    agent_report._curve(ax, run, result)
    return ax


def test_equal_values_are_as_many_arrows() -> None:
    world = envs.load("zhao-5x5")
    assert isinstance(world, envs.World)
    agent = agents.trainer("q-learning", world, replicas=2).agent
    odds = agent_report._actions(agent, world, "index")
    assert torch.equal(odds, torch.full((2, 25, 5), 0.2, dtype=torch.float64))
    agent.q.value[:, 3, 2] = 1.0
    agent.q.value[:, 3, 4] = 1.0 + 1e-13  # equal but for rounding
    odds = agent_report._actions(agent, world, "index")
    assert odds[:, 3].tolist() == [[0, 0, 0.5, 0, 0.5]] * 2
    assert (odds[:, 4] == 0.2).all()


@pytest.mark.parametrize(
    ("measure", "title"),
    [
        ("exact value from the start at discount 1 of the greedy policy", "value of the greedy policy"),
        ("exact value from the start at discount 1 of the learned policy", "value of the learned policy"),
        (PREDICTION, "minus the error of the values"),
    ],
)
def test_the_curve_says_what_it_is_of_and_its_legend_covers_nothing(measure: str, title: str, tmp_path: Path) -> None:
    ax = curve(made(tmp_path / "run", [-5.0, -4.0]), measure)
    assert ax.get_title(loc="left") == title
    low, high = ax.get_ylim()
    assert -5.0 - low > 0.15 * (high - low)  # below the lowest point


def test_a_policy_that_never_arrives_has_the_curve_of_its_returns(tmp_path: Path) -> None:
    ax = curve(made(tmp_path / "run", [None, None]), "exact value of the greedy policy", 2)
    assert ax.get_title(loc="left") == "return while learning\n(the greedy policy never arrives)"
    assert ax.lines[0].get_ydata().tolist() == [-8.0, -8.0]


def test_without_any_number_there_are_words_and_no_axes(tmp_path: Path) -> None:
    ax = curve(Run.create(tmp_path / "run", "train", {}, 0), "exact value of the greedy policy", 2)
    assert not ax.axison
    assert "never arrives: minus infinity" in ax.texts[0].get_text()


def test_a_number_and_its_interval_stay_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    header = ("learner", "reward an episode, late [95%]", "greedy path, median", "replicas on a path of 13")
    console.table("", header, [("Q-learning", "-50.0 [-51.7, -48.2]", "-13", "100%")], wrap=True)
    said = capsys.readouterr().out
    assert "-50.0 [-51.7, -48.2]" in said
    assert max(map(len, said.splitlines())) <= 80
