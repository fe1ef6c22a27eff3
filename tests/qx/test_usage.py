"""Words become dataclasses, and configurations survive JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import pytest
import tyro

from qx.usage import UsageError, choose, from_tree, glanced, parse, to_tree, value_of
from qx.words import nearest

C = TypeVar("C")


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    """Larger is faster, and longer than
    a line of the source."""
    sizes: tuple[int, ...] = (64, 64)
    size: int = 1
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Innermost:
    rate: float = 1e-3
    """Larger is faster, and longer than
    a line of the source."""


@dataclass(frozen=True)
class Nested:
    """Known by its name alone, as all annotations here are."""

    inner: Innermost


@dataclass(frozen=True, kw_only=True)
class Outer(Generic[C]):
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    inner: C
    gamma: float | None = None
    out: Path | None = None
    """Where to write, which is longer
    than a line of the source."""


def test_a_configuration_survives_json() -> None:
    made = Outer(name="x", inner=Inner(rate=2, sizes=(3,), kind="b"), gamma=0.5, out=Path("a/b"))
    again = from_tree(Outer[Inner], json.loads(json.dumps(to_tree(made))))
    assert again == made
    assert isinstance(again.inner.sizes, tuple)


def test_a_field_of_a_later_version_is_named() -> None:
    with pytest.raises(UsageError, match="has 'later', which this version does not know"):
        from_tree(Inner, {"rate": 1.0, "later": 2})


def test_a_wrong_flag_is_one_line_with_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"^Unrecognized options: --gama, 3; did you mean --gamma\? \(see `qx x --help`\)$"
    ):
        parse(Outer[Inner], ["w", "--gama", "3"], "qx x", Outer(name=tyro.MISSING, inner=Inner()))


@pytest.mark.parametrize(
    ("args", "said"), [(["w", "--kind", "c"], "--kind"), ([], "NAME"), (["w", "--rate", "x"], "--rate")]
)
def test_a_wrong_value_is_one_line(args: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse(Outer[Inner], args, "qx x", Outer(name=tyro.MISSING, inner=Inner()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["w", "--rate", "x"], "--rate: 'x', expected a number"),
        (["w", "--gamma", "x"], "--gamma: 'x', expected a number"),
        (["w", "--size", "x"], "--size: 'x', expected an integer"),
    ],
)
def test_what_is_no_number_is_said_plainly(args: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(Outer[Inner], args, "qx x", Outer(name=tyro.MISSING, inner=Inner()))


def test_a_beginning_means_the_flag_that_begins_so() -> None:
    assert nearest("Unrecognized options: --step, 100", "--exploration-steps INT Steps --steps INT Steps") == "--steps"
    assert nearest("Unrecognized options: --exp", "--epsilon FLOAT --exploration-steps INT") == "--exploration-steps"
    assert nearest("Unrecognized options: --out-put", "--output X") == "--output"
    assert nearest("Unrecognized options: 100", "--steps INT") == ""


def test_what_may_be_left_out_is_given_as_itself() -> None:
    default = Outer(name=tyro.MISSING, inner=Inner(), gamma=0.5)
    assert parse(Outer[Inner], ["w", "--out", "a/b"], "qx x", default).out == Path("a/b")
    assert parse(Outer[Inner], ["w", "--gamma", "0.25"], "qx x", default).gamma == 0.25
    assert parse(Outer[Inner], ["w", "--gamma", "None"], "qx x", default).gamma is None
    assert parse(Outer[Inner], ["w"], "qx x", default).gamma == 0.5


@dataclass(frozen=True, kw_only=True)
class Flags:
    file: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FILE")] = ""
    a_flag: str | None = None
    other: str = ""


@pytest.mark.parametrize(
    "words",
    [
        "",
        "--a-flag 1",
        "--a-flag=1",
        "--a_flag 1",
        "--a_flag=1",
        "f --a-flag 1 --a-flag=2 --a_flag 3 --other 4",
        "f --a-flag=1=2",
        "--other a-flag f",
    ],
)
def test_a_flag_is_read_beforehand_as_it_will_be_read(words: str) -> None:
    found = parse(Flags, words.split(), "qx x")
    assert value_of(words.split(), "--a-flag") == found.a_flag
    assert glanced(Flags, [*words.split(), *["-h", "--help"]], Flags(other="x")) == parse(
        Flags, words.split(), "qx x", Flags(other="x")
    )


def test_beforehand_wrong_words_are_left_to_be_named_later() -> None:
    default = Flags(file="x")
    assert glanced(Flags, ["f", "--wrong", "1"], default) is default
    assert value_of(["--a-flag"], "--a-flag") is None


def test_help_is_whole_sentences(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        parse(Outer[Inner], ["--help"], "qx x", Outer(name=tyro.MISSING, inner=Inner()))
    said = capsys.readouterr().out
    assert "Larger is faster, and longer than a line of the source." in said
    assert "Where to write, which is longer than a line of the source." in said
    assert "--gamma FLOAT" in said
    assert "None}" not in said
    with pytest.raises(SystemExit):
        parse(Nested, ["--help"], "qx x")
    assert "Larger is faster, and longer than a line of the source." in capsys.readouterr().out


def test_the_nearest_name_is_offered() -> None:
    assert choose("agent", "dqn", ["dqn", "q-learning"]) == "dqn"
    with pytest.raises(UsageError, match="unknown agent 'dqm'; did you mean 'dqn'"):
        choose("agent", "dqm", ["dqn", "q-learning"])
    with pytest.raises(UsageError, match="there are: dqn, q-learning"):
        choose("agent", "zzz", ["q-learning", "dqn"])
