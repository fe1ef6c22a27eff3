"""`qx solve --method`: one answer by four ways, each with its counts, and one line for what cannot be."""

import json
import re

import numpy as np
import pytest

from qx.main import main
from qx.methods import METHODS


@pytest.mark.parametrize("name", ["zhao-5x5", "gambler"])
def test_every_method_gives_the_same_values_and_says_what_it_took(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for method in METHODS:
        assert main(["solve", name, "--method", method, "--json"]) == 0
        *text, last = capsys.readouterr().out.splitlines()
        found[method] = json.loads(last)
        counted = re.search(
            r"^by (.+), (\d+) (sweeps|improvements?|values moved), (\d+) backups", "\n".join(text), re.M
        )
        assert counted
        assert found[method]["method"] == counted[0][3:]
        assert [int(counted[2]), int(counted[4])] == [found[method]["iterations"], found[method]["backups"]]
    default = found["policy-iteration"]
    for one in found.values():
        np.testing.assert_allclose(one["values"], default["values"], rtol=0, atol=1e-9)
        assert one["optimal_return"] == pytest.approx(default["optimal_return"], abs=1e-9)
        assert list(one) == list(default)
    assert len({one["backups"] for one in found.values()}) == 4
    assert main(["solve", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == default


def test_where_nothing_was_counted_the_counts_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", "zhao-5x5", "--policy", "uniform", "--json"]) == 0
    given = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert given["iterations"] is given["backups"] is None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--method", "truncate"], ["unknown method 'truncate'", "did you mean 'truncated'"]),
        (["--method", "truncated", "--horizon", "5"], ["--method truncated", "--horizon"]),
        (["--method", "prioritised", "--policy", "uniform"], ["--method prioritised", "--policy"]),
        (["--method", "prioritised", "--gamma", "1"], ["gamma 1.0", "take gamma < 1"]),
        (["--method", "truncated", "--gamma", "1"], ["gamma 1.0", "take gamma < 1"]),
    ],
)
def test_a_method_that_cannot_be_is_one_line(
    args: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", "zhao-5x5", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words), line
