"""From words on a command line to a frozen dataclass, by tyro; a wrong word becomes one line and exit code 2."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from qx import words
from qx.limits import UsageError as UsageError
from qx.limits import check

T = TypeVar("T")


@dataclass(frozen=True)
class Common:
    """What every command takes."""

    seed: int = 0
    """Root of every random draw: the same seed gives the same run."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""
    out: Path | None = None
    """Directory to write to. By default a new one under runs/."""


@dataclass(frozen=True)
class Answering(Common):
    """What every command takes that answers a question, and keeps no run."""

    out: Path | None = None
    """Directory for result.json, and for the picture where there is one. By default nothing is written."""


@dataclass(frozen=True)
class Lasting(Common):
    """What every command that trains takes besides."""

    save_every: float = 30.0
    """Seconds between checkpoints. A kill loses at most this much work; the result does not depend on it."""


def parse(kind: Any, args: Sequence[str], prog: str, default: Any = None) -> Any:
    """`kind` filled from `args`. Raises UsageError; `--help` prints and ends the program."""
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    said = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        if {"-h", "--help"} & set(args):
            words.whole_sentences(kind)
        with contextlib.redirect_stderr(said), words.REGISTRY:
            found = tyro.cli(kind, args=list(args), prog=prog, config=config, **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UsageError(_one_line(said.getvalue(), prog)) from None
    check(found)
    return found


def glanced(kind: type[T], args: Sequence[str], default: T) -> T:
    """`parse` before it is known what suits: help aside, and `default` fills what is left out.

    Of wrong words it is the default: `parse` will name them.
    """
    try:
        found: T = parse(kind, [word for word in args if word not in ("-h", "--help")], "qx", default)
    except UsageError:
        return default
    return found


def value_of(args: Sequence[str], flag: str) -> str | None:
    """What a flag is given, before it is known of which dataclass the words are: as `parse` reads it, so the last
    counts, and `_` in its name is `-`.
    """
    found = None
    for place, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == flag:
            found = value if equals else next(iter(args[place + 1 :]), None)
    return found


@contextlib.contextmanager
def asked(what: str) -> Iterator[None]:
    """What a constructor refuses here was asked for: a plain ValueError becomes a UsageError, in one line."""
    try:
        yield
    except ValueError as error:
        if type(error) is not ValueError:
            raise  # a refusal with a name of its own says enough
        raise UsageError(f"{what}: {' '.join(str(error).split())}") from None


def _one_line(box: str, prog: str) -> str:
    """tyro's box of an error as one line: what is wrong, the nearest flag, and where help is."""
    paragraphs: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("╭╮╰╯│─ ")
        if not text or line.startswith(("╭", "╰")) or set(line) <= set("│─ "):
            paragraphs.append([])
        else:
            paragraphs[-1].append(text)
    found = [" ".join(lines) for lines in paragraphs if lines]
    what = found[0].rstrip(".") if found else "the arguments do not fit"
    near = words.nearest(what, next((p for p in found if p.startswith("Perhaps you meant")), ""))
    return f"{words.plainly(what)}{f'; did you mean {near}?' if near else ''} (see `{prog} --help`)"


def choose(what: str, name: str, among: Iterable[str]) -> str:
    """`name` if it is one of `among`. Raises UsageError naming the nearest, or all of them where none is near."""
    known = sorted(among)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"
    raise UsageError(f"unknown {what} {name!r}; {hint}")


def to_tree(value: Any) -> Any:
    """A dataclass as JSON can hold it, so that `from_tree` gives an equal one."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_tree(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [to_tree(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_tree(kind: Any, tree: Any) -> Any:
    """The value of type `kind` that `to_tree` turned into `tree`. Raises UsageError for a field that is not known."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return from_tree(inner[0], tree)
    if origin in (types.UnionType, typing.Union):
        return None if tree is None else from_tree(next(k for k in inner if k is not type(None)), tree)
    if origin is tuple:
        kinds = [inner[0]] * len(tree) if inner[1:] == (...,) else inner
        return tuple(from_tree(k, item) for k, item in zip(kinds, tree, strict=True))
    if dataclasses.is_dataclass(kind if origin is None else origin):
        hints = _hints(kind)
        unknown = sorted(set(tree) - set(hints))
        if unknown:
            raise UsageError(f"the run's configuration has {unknown[0]!r}, which this version does not know")
        return kind(**{name: from_tree(hints[name], item) for name, item in tree.items()})
    return kind(tree) if kind in (Path, float) else tree


def _hints(kind: Any) -> dict[str, Any]:
    """Field types of a dataclass, its type parameters filled in."""
    origin = typing.get_origin(kind) or kind
    filled = dict(zip(getattr(origin, "__parameters__", ()), typing.get_args(kind), strict=True))
    hints = typing.get_type_hints(origin, include_extras=True)
    return {name: _fill(hint, filled) for name, hint in hints.items()}


def _fill(hint: Any, filled: dict[Any, Any]) -> Any:
    if typing.get_origin(hint) is typing.Annotated:
        return _fill(typing.get_args(hint)[0], filled)
    return filled.get(hint, hint) if isinstance(hint, TypeVar) else hint
