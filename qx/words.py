"""How tyro reads and says the words of a command line: what may be left out, and help in whole sentences."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from typing import Any

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

FLAG = re.compile(r"(?<![\w-])--[a-z0-9][a-z0-9-]*")
NO_NUMBER = re.compile(
    r"(?:invalid literal for (?P<whole>int)\(\) with base 10|could not convert string to float): (?P<given>'.*?')"
)
REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`X | None` is given as an X is, and said so; tyro itself says `{None}|X`."""
    kinds = [kind for kind in typing.get_args(info.type) if kind is not type(None)]
    is_union = info.type_origin in (types.UnionType, typing.Union)
    if not is_union or len(kinds) != 1 or type(None) not in typing.get_args(info.type):
        return None
    inner: Any = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds[0], info.markers))
    if not isinstance(inner, PrimitiveConstructorSpec) or inner.nargs != 1:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=inner.metavar,
        instance_from_str=lambda words: None if words == ["None"] else inner.instance_from_str(words),
        is_instance=lambda value: value is None or inner.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else inner.str_from_instance(value),
    )


def whole_sentences(kind: Any) -> None:
    """Have the help of a dataclass, and of those in it, without the line breaks of its source.

    tyro takes each indented line of a field's docstring for a paragraph, unless the field's metadata hold its help.
    """
    import docstring_parser  # by which tyro reads docstrings, too; only where help is asked for

    kinds = [kind]
    while kinds:
        kind = kinds.pop()
        kinds += [inner for inner in typing.get_args(kind) if dataclasses.is_dataclass(inner)]
        made = typing.get_origin(kind) or kind
        said = {
            part.arg_name: part.description
            for owner in reversed(made.__mro__[:-1])
            for part in docstring_parser.parse_from_object(owner).params
            if part.description
        }
        hints = typing.get_type_hints(made)  # a field's own type is but its name
        for field in dataclasses.fields(made):
            if isinstance(hints[field.name], type) and dataclasses.is_dataclass(hints[field.name]):
                kinds.append(hints[field.name])
            if field.name in said:
                help_of = {**field.metadata, "help": " ".join(said[field.name].split())}
                field.metadata = types.MappingProxyType(help_of)


def nearest(what: str, offered: str) -> str:
    """Of the flags that tyro offers, the nearest to the first that it did not know; "" where it offers none."""
    wrong, flags = FLAG.search(what), FLAG.findall(offered)
    if wrong is None or not flags:
        return ""

    def near(flag: str) -> tuple[bool, float]:
        return flag.startswith(wrong[0]), difflib.SequenceMatcher(None, wrong[0], flag).ratio()

    return max(flags, key=near)


def plainly(what: str) -> str:
    """Python's words for what is no number in a person's."""
    return NO_NUMBER.sub(
        lambda said: f"{said['given']}, expected {'an integer' if said['whole'] else 'a number'}", what
    )
