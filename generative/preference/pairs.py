"""Preference pairs: a prompt and two completions of it, of which the first was preferred.

A row holds `chosen` and `rejected`, and a `prompt` or none. All are strings, or all lists of messages, objects with
`role` and `content`. Without a prompt both sides begin with it: it is what they have in common, of strings without a
last space (which belongs to the word after it), of chats in whole messages. So of two strings that begin alike, where
one ends there, a side is empty, and the row is a fault; trl 1.16 keeps it.

What else a message holds (`tool_calls`, `reasoning_content`, ...), and the columns `tools` and `chat_template_kwargs`,
the chat template is handed as it is, as by trl, without keys that are null, which parquet gives to all messages alike.

`rows` names what is wrong with a row that cannot teach anything; `preflight` counts them all.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from generative.jsonl import Fault, listed, show
from generative.preference.records import COLUMNS, TEMPLATE, RecordError, records

DEEP = 64  # lists and objects in one another, at most, of what a chat template is handed


class PairError(ValueError):
    """A preference file cannot be used; the message names the file, the line and what was expected there."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    more: str = ""
    """What else it holds, an object as JSON; "" for nothing."""

    def plain(self) -> dict[str, Any]:
        """The object that it was read from, without null."""
        return {"role": self.role, "content": self.content, **_decoded(self.more)}


Text = str | tuple[Message, ...]


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt, of which the first was preferred: three strings, or three parts of a chat."""

    prompt: Text
    chosen: Text
    rejected: Text
    template: str = ""
    """The row's `tools` and `chat_template_kwargs`, an object as JSON; "" for neither."""

    @property
    def chat(self) -> bool:
        """Whether it is of messages."""
        return not isinstance(self.prompt, str)

    def handed(self) -> dict[str, Any]:
        """What the chat template is handed besides messages, by name."""
        columns = _decoded(self.template)
        tools = {"tools": columns["tools"]} if "tools" in columns else {}
        return {**tools, **columns.get("chat_template_kwargs", {})}

    def more(self) -> list[str]:
        """The names of all that the chat template is handed beside roles and contents, sorted."""
        chat = [] if isinstance(self.prompt, str) else [*self.prompt, *self.chosen, *self.rejected]
        messages = {key for message in chat if isinstance(message, Message) for key in _decoded(message.more)}
        return sorted({*_decoded(self.template), *messages})


Found = Pair | Fault


def rows(path: Path) -> Iterator[tuple[str, Found]]:
    """(place, what the row there holds) for every row that is not blank. Raises PairError for an unreadable file."""
    try:
        for place, row in records(path):
            yield place, row if isinstance(row, Fault) else pair_of(row)
    except RecordError as error:
        raise PairError(str(error)) from None


def write(path: Path, pairs: Iterable[Pair]) -> None:
    """Write the pairs as JSON Lines, so that `rows` gives them back."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            row = {column: _plain(getattr(pair, column)) for column in COLUMNS} | _decoded(pair.template)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def pair_of(row: dict[str, Any]) -> Found:
    """The pair of a row, or what is wrong with it."""
    given = {column: row[column] for column in COLUMNS if row.get(column) is not None}
    for column in COLUMNS:
        if column in given:
            continue
        if column in row and column != "prompt":
            return Fault("missing_column", f"the column {column!r} is null; expected a string, or a list of messages")
        near = difflib.get_close_matches(column, [key for key in row if key not in (*COLUMNS, *TEMPLATE)], n=1)
        if near or column != "prompt":
            held = "a demonstration, and no pair" if "completion" in row else listed(row)
            hint = f"did {near[0]!r} mean it?" if near else f"it holds {held}"
            return Fault("missing_column", f"the column {column!r} is missing; {hint}")
    texts = {}
    for column, value in given.items():
        found = text_of(column, value)
        if isinstance(found, Fault):
            return found
        texts[column] = found
    kinds = {column: isinstance(text, str) for column, text in texts.items()}
    if len(set(kinds.values())) > 1:
        words = ", ".join(f"{column} {'a string' if kind else 'messages'}" for column, kind in kinds.items())
        return Fault("not_string", f"{words}; expected all strings, or all lists of messages")
    if texts["chosen"] == texts["rejected"]:
        both = show(said(texts["chosen"]))
        return Fault("identical", f"chosen and rejected are the same text {both}: no preference to learn")
    template = template_of(row)
    if isinstance(template, Fault):
        return template
    pair = Pair(**texts, template="") if "prompt" in texts else _implicit(texts["chosen"], texts["rejected"])
    return _usable(replace(pair, template=template))


def _usable(pair: Pair) -> Found:
    for column in ("chosen", "rejected"):
        if silent(getattr(pair, column)):
            return Fault("empty", f"the {column} side is empty; a pair needs two completions")
    if pair.chat and not pair.prompt:
        return Fault("empty", "the prompt has no messages; a chat needs one to answer")
    return pair


def _implicit(chosen: Text, rejected: Text) -> Pair:
    """What both sides begin with is the prompt."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        common = _alike(chosen, rejected)
        if 0 < common < max(len(chosen), len(rejected)) and chosen[common - 1] == " ":
            common -= 1  # a space belongs to the word after it
        return Pair(chosen[:common], chosen[common:], rejected[common:])
    common = _alike(chosen, rejected)
    return Pair(tuple(chosen[:common]), tuple(chosen[common:]), tuple(rejected[common:]))  # type: ignore[arg-type]  # chats


def _alike(one: Sequence[object], other: Sequence[object]) -> int:
    """How many both begin with."""
    return len(list(takewhile(lambda two: two[0] == two[1], zip(one, other, strict=False))))


def text_of(column: str, value: object) -> Text | Fault:
    """The text of a column, a string or messages, or what is wrong with it."""
    if isinstance(value, str):
        return _unicode(column, value)
    if not isinstance(value, list):
        return Fault("not_string", f"{column!r} is {show(value)}; expected a string, or a list of messages")
    messages = []
    for number, each in enumerate(value, 1):
        if not isinstance(each, dict) or not all(isinstance(each.get(key), str) for key in ("role", "content")):
            return Fault(
                "not_string",
                f"message {number} of {column!r} is {show(each)}; expected an object with role and content",
            )
        for key in ("role", "content"):
            found = _unicode(column, each[key])
            if isinstance(found, Fault):
                return found
        more = _encoded(column, {key: part for key, part in each.items() if key not in ("role", "content")})
        if isinstance(more, Fault):
            return more
        messages.append(Message(each["role"], each["content"], more))
    return tuple(messages)


def template_of(row: dict[str, Any]) -> str | Fault:
    """`Pair.template` of a row, or what is wrong with it."""
    given = {column: row.get(column) for column in TEMPLATE}
    if isinstance(given["tools"], str):
        with suppress(ValueError, RecursionError):  # then it is no list either
            given["tools"] = json.loads(given["tools"])
    given = {column: value for column, value in given.items() if value}
    for column, kind, words in (("tools", list, "a list, or one as JSON"), ("chat_template_kwargs", dict, "an object")):
        if not isinstance(given.get(column, kind()), kind):
            return Fault("not_string", f"{column!r} is {show(given[column])}; expected {words}")
    return _encoded(" and ".join(given), given)


def _encoded(column: str, found: dict[str, Any]) -> str | Fault:
    """An object as JSON, without keys that are null; "" where nothing is left."""
    try:
        kept = _kept(found)
        return _unicode(column, json.dumps(kept, ensure_ascii=False) if kept else "")
    except (TypeError, ValueError) as error:
        return Fault("not_string", f"{column!r} holds what is no JSON ({error}); expected what a file of it can hold")


def _kept(found: Any, depth: int = 0) -> Any:
    if depth > DEEP:
        raise ValueError(f"deeper than {DEEP}")
    if isinstance(found, dict):
        return {key: _kept(part, depth + 1) for key, part in found.items() if part is not None}
    return [_kept(part, depth + 1) for part in found] if isinstance(found, list) else found


def _decoded(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text or "{}")
    return found


def _unicode(column: str, text: str) -> str | Fault:
    if any("\ud800" <= character <= "\udfff" for character in text):
        return Fault("not_string", f"{column!r} holds half of a surrogate pair; expected Unicode text")
    return text


def said(text: Text) -> str:
    """All that is said."""
    return text if isinstance(text, str) else "".join(message.content for message in text)


def silent(text: Text) -> bool:
    """Whether nothing is said, and a message holds nothing else either."""
    more = not isinstance(text, str) and any(any(_decoded(message.more).values()) for message in text)
    return not said(text).strip() and not more


def _plain(text: Text) -> Any:
    return text if isinstance(text, str) else [message.plain() for message in text]
