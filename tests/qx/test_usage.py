"""Words become dataclasses, and configurations survive JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

import pytest
import tyro

from qx.usage import UsageError, choose, from_tree, parse, to_tree

C = TypeVar("C")


@dataclass(frozen=True)
class Inner:
    rate: float = 1e-3
    sizes: tuple[int, ...] = (64, 64)
    kind: Literal["a", "b"] = "a"


@dataclass(frozen=True, kw_only=True)
class Outer(Generic[C]):
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    inner: C
    gamma: float | None = None
    out: Path | None = None


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


def test_the_nearest_name_is_offered() -> None:
    assert choose("agent", "dqn", ["dqn", "q-learning"]) == "dqn"
    with pytest.raises(UsageError, match="unknown agent 'dqm'; did you mean 'dqn'"):
        choose("agent", "dqm", ["dqn", "q-learning"])
    with pytest.raises(UsageError, match="there are: dqn, q-learning"):
        choose("agent", "zzz", ["q-learning", "dqn"])
