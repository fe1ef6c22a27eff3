"""`qx reproduce`: its keys, its exit codes, and that a claim which does not hold is reported and no failure."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from experiments import catalog
from experiments.claim import Claim, DataError, Finding, Setting
from lab import plots
from qx import main
from qx import reproduce as module

CLAIM = Claim("Ten is more than nine.", "Somebody 1999, sec. 1", {"ten": "> 9", "nine": 9.0})
KEYS = {"name", "claim", "source", "stated", "found", "holds", "verdict", "seconds", "run"}


def run(setting: Setting) -> Finding:
    figure, (ax,) = plots.figure()
    plots.curve(ax, [0, 1], [9, 10])
    setting.report(0.5, "half")
    draw = torch.rand((), generator=torch.Generator().manual_seed(setting.seed))
    found = {"ten": 10.0 + float(draw), "nine": 9.0}
    return Finding(found, setting.data is None, "because [it] does", figure, ["a", "b"], [["1", "x"]])


def needy(setting: Setting) -> Finding:
    raise DataError("needy: give the folder with --data")


def lacking(setting: Setting) -> Finding:
    raise ModuleNotFoundError("no", name="statsmodels")


def broken(setting: Setting) -> Finding:
    raise ZeroDivisionError("[by] nothing")


@pytest.fixture(autouse=True)
def _catalog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = {"tenth": (CLAIM, run), "needy": (CLAIM, needy)}
    monkeypatch.setattr(module, "EXPERIMENTS", made)
    monkeypatch.chdir(tmp_path)


def test_one_claim_gives_numbers_a_picture_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["reproduce", "tenth", "--seed", "3", "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr().out
    found = json.loads(said.splitlines()[-1])
    assert set(found) >= KEYS
    assert found["claim"] == CLAIM.claim
    assert found["stated"] == {"ten": "> 9", "nine": 9.0}
    assert found["found"]["ten"] == 10 + float(torch.rand((), generator=torch.Generator().manual_seed(3)))
    assert found["holds"] is True
    assert found["run"] == "runs/reproduce-tenth-1"
    folder = tmp_path / found["run"]
    assert json.loads((folder / "result.json").read_text()) == found
    assert (folder / "report.png").read_bytes()[:4] == b"\x89PNG"
    for words in (CLAIM.claim, CLAIM.source, "stated", "> 9", "because [it] does", str(found["run"])):
        assert words in said


def test_a_claim_that_does_not_hold_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--data", str(tmp_path), "--out", str(tmp_path / "here"), "--device", "cpu"]
    assert main.main(["reproduce", "tenth", *args, "--json"]) == 0
    said = capsys.readouterr().out
    assert "does not hold" in said
    assert json.loads(said.splitlines()[-1])["holds"] is False
    assert (tmp_path / "here" / "report.png").exists()


def test_the_list_is_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["reproduce", "--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    said = {"claim": CLAIM.claim, "source": CLAIM.source, "minutes": CLAIM.minutes}
    said |= {"needs": None, "holds": True, "group": "others"}
    assert found == [{"name": n, **said} for n in ("needy", "tenth")]


def test_the_list_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "EXPERIMENTS", catalog.EXPERIMENTS)
    assert main.main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if "does not hold" in line} == catalog.NOT_HELD
    assert {line.split()[0] for line in lines if "not yet run" in line} == catalog.NOT_RUN
    for name in catalog.EXPERIMENTS:
        assert sum(line.split()[:1] == [name] for line in lines) == 1


def test_all_runs_what_needs_no_data_and_says_what_it_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["reproduce", "all", "--json", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert [result["name"] for result in json.loads(said.splitlines()[-1])] == ["tenth"]
    assert "needy: not run (needy: give the folder with --data)" in said


def test_all_leaves_out_what_takes_long_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(module.EXPERIMENTS, "tenth", (dataclasses.replace(CLAIM, minutes=7.0), run))
    assert main.main(["reproduce", "all", "--json", "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[-1]) == []
    assert "tenth: not run (about 7 minutes" in said
    assert main.main(["reproduce", "all", "--long", "--json", "--device", "cpu"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out.splitlines()[-1])] == ["tenth"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["tent"], "unknown claim 'tent'; did you mean 'tenth'?"),
        ([], "expected a claim next"),
        (["needy"], "needy: give the folder with --data"),
        (["tenth", "--data", "nowhere"], "--data nowhere: no such file or folder"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    args: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["reproduce", *args]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(module, "EXPERIMENTS", {"lacking": (CLAIM, lacking)})
    assert main.main(["reproduce", "lacking"]) == 1
    assert "lacking needs statsmodels: pip install -e '.[reproduce]'" in capsys.readouterr().err


def test_all_goes_on_where_one_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = {"broken": (CLAIM, broken), "lacking": (CLAIM, lacking), "needy": (CLAIM, needy), "tenth": (CLAIM, run)}
    monkeypatch.setattr(module, "EXPERIMENTS", made)
    assert main.main(["reproduce", "all", "--json", "--device", "cpu"]) == 1
    said = capsys.readouterr()
    found = {entry["name"]: entry for entry in json.loads(said.out.splitlines()[-1])}
    assert list(found) == ["broken", "lacking", "tenth"]
    assert found["broken"] == {"name": "broken", "failed": "ZeroDivisionError: [by] nothing"}
    assert found["lacking"]["failed"] == "lacking needs statsmodels: pip install -e '.[reproduce]'"
    assert found["tenth"]["holds"] is True
    rows = {line.split()[0]: " ".join(line.split()[1:-1]) for line in said.out.splitlines() if line.split()[2:]}
    assert (rows["broken"], rows["lacking"], rows["needy"], rows["tenth"]) == ("failed", "failed", "not run", "holds")
    assert "2 of 4 claims failed: broken, lacking" in said.err


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (260_032, "260,032"),
        (1.0, "1"),
        (0.0, "0"),
        (-3.0, "-3"),
        (16_384.4, "16,384"),
        (1.98765, "1.988"),
        (0.0123456, "0.01235"),
        (1.7763568394002505e-15, "1.8e-15"),
        (-0.00012345, "-1.2e-04"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("> 0.5", "> 0.5"),
    ],
)
def test_numbers_can_be_read(number: float | str, words: str) -> None:
    assert module._words(number) == words


def test_a_result_that_stands_is_not_written_over(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["reproduce", "tenth", "--out", str(tmp_path / "r")]
    assert main.main(arguments) == 0
    before = (tmp_path / "r" / "result.json").read_bytes()
    assert main.main(arguments) == 2
    assert "a result stands here already; give another --out" in capsys.readouterr().err
    assert (tmp_path / "r" / "result.json").read_bytes() == before


def wordy(setting: Setting) -> Finding:
    figure, _ = plots.figure()
    row = ["a long name of a row"] * 8
    return Finding(
        {"ten": "number " * 20, "nine": 9.0}, True, "because", figure, [f"column {i} of many" for i in range(8)], [row]
    )


def test_no_word_of_a_narrow_terminal_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.EXPERIMENTS, "wordy", (CLAIM, wordy))
    assert main.main(["reproduce", "wordy"]) == 0
    said = capsys.readouterr().out
    assert "\u2026" not in said
    assert said.count("number") == 20
