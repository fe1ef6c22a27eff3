"""What a chat holds beside roles and contents: it is kept, written, compared and handed to the chat template."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from generative.jsonl import Fault
from generative.language.demonstrations import demonstration
from generative.language.demonstrations import read as demonstrations
from generative.preference.pairs import Message, Pair, pair_of, rows, write
from generative.preference.preflight import preflight
from generative.preference.tokens import Pretrained, TokenisingError
from tests.generative.preference.test_tokens import spoken, tokenizer

SEEING = (
    "{% if tools %}[{{ tools | map(attribute='name') | join }}]{% endif %}{{ mood }}"
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ m['reasoning_content'] }}"
    "{% for call in m['tool_calls'] %}({{ call['name'] }}{{ call['arguments'] | tojson }}){% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def calling(name: str, **arguments: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": "", "tool_calls": [{"name": name, "arguments": arguments}]}]


CALLS = {"prompt": [{"role": "user", "content": "x"}], "chosen": calling("f", b=1, a=2), "rejected": calling("g")}
SAID = ("<user>x</s><assistant>", '(f{"b": 1, "a": 2})</s>', "(g{})</s>")


def pair(row: dict[str, Any]) -> Pair:
    found = pair_of(row)
    assert isinstance(found, Pair), found
    return found


def test_calls_that_differ_alone_are_a_preference_where_the_template_writes_them(tmp_path: Path) -> None:
    assert spoken(Pretrained(tokenizer(SEEING))(pair(CALLS))) == SAID
    path = tmp_path / "calls.jsonl"
    path.write_text(json.dumps(CALLS))
    seen, blind = (preflight(path, Pretrained(each)).findings for each in (tokenizer(SEEING), tokenizer()))
    assert (seen.usable, seen.more_keys, blind.usable, blind.identical_when_cut) == (1, 1, 0, 1)
    assert seen.first["more_keys"] == f"{path}:1: 'tool_calls': the chat template decides what of it is seen"


def test_columns_and_keys_are_handed_on_from_every_kind_of_file(tmp_path: Path) -> None:
    """In parquet every message has all keys, most of them null, and that is as if it had them not."""
    row = {
        **{key: [{**m, "reasoning_content": "!"} for m in CALLS[key]] for key in ("chosen", "rejected")},
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "x", "name": "Ann"}],
        "tools": [{"name": "f"}, {"name": "g"}],
        "chat_template_kwargs": {"mood": "calm"},
    }
    for part in ("chosen", "rejected"):
        row[part][0]["tool_calls"] = [{"name": "f", "arguments": {"a": part}}]
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "table.parquet")
    (tmp_path / "lines.jsonl").write_text(json.dumps({**row, "tools": json.dumps(row["tools"])}))
    [(_, read)] = rows(tmp_path / "lines.jsonl")
    assert isinstance(read, Pair)
    write(tmp_path / "again.jsonl", [read])
    for name in ("lines.jsonl", "table.parquet", "again.jsonl"):
        assert [found for _, found in rows(tmp_path / name)] == [read]
    assert read.more() == ["chat_template_kwargs", "name", "reasoning_content", "tool_calls", "tools"]
    assert spoken(Pretrained(tokenizer(SEEING))(read)) == (
        "[fg]calm<system>s</s><user>x</s><assistant>",
        '!(f{"a": "chosen"})</s>',
        '!(f{"a": "rejected"})</s>',
    )


def test_demonstrations_hand_on_the_same(tmp_path: Path) -> None:
    row = {"prompt": CALLS["prompt"], "completion": CALLS["chosen"], "tools": [{"name": "f"}]}
    found = demonstration(row)
    assert isinstance(found, Pair)
    assert spoken(Pretrained(tokenizer(SEEING))(found))[:2] == (f"[f]{SAID[0]}", SAID[1])
    path = tmp_path / "demonstrations.jsonl"
    bare = [{"prompt": "", "completion": word} for word in ("yy", "</s>")]
    path.write_text("\n".join(map(json.dumps, (row, *bare))))
    found = demonstrations(path, Pretrained(tokenizer(SEEING)), 99)
    assert [len(tokens.prompt) > 0 for tokens in found.tokens] == [True, False]
    assert {
        kind: [place.removeprefix(f"{path}:")[:20] for place in places] for kind, places in found.doubts.items()
    } == {
        "more keys": ["1: 'tool_calls', 'to"],
        "no prompt": ["2: its prompt is not"],
        "left out, unscored": ["3: nothing of the co"],
    }


def test_messages_that_differ_in_a_further_key_are_others() -> None:
    """Neither the same side, nor part of the prompt that both sides begin with."""
    one = {"role": "user", "content": "x", "name": "Ann"}
    answers = [[{"role": "assistant", "content": word}] for word in ("y", "z")]
    found = pair_of({"chosen": [one, *answers[0]], "rejected": [{**one, "name": "Ben"}, *answers[1]]})
    assert isinstance(found, Fault)
    assert "no messages" in found.message
    same = pair({"chosen": [one, *answers[0]], "rejected": [dict(one), *answers[1]]})
    assert same.prompt == (Message("user", "x", '{"name": "Ann"}'),)


def test_nothing_said_in_any_key_is_empty() -> None:
    for more in ({}, {"tool_calls": []}, {"tool_calls": None}):
        found = pair_of({**CALLS, "chosen": [{"role": "assistant", "content": " ", **more}]})
        assert isinstance(found, Fault)
        assert found.kind == "empty"


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else "x"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"tools": "no JSON"}, "'tools' is 'no JSON'; expected a list, or one as JSON"),
        ({"tools": {"name": "f"}}, "'tools' is {'name': 'f'}; expected a list"),
        ({"chat_template_kwargs": "mood"}, "'chat_template_kwargs' is 'mood'; expected an object"),
        ({"tools": [datetime.date(2026, 1, 1)]}, "'tools' holds what is no JSON (Object of type date"),
        ({"tools": deep(100)}, "(deeper than 64)"),
        ({"tools": ["\ud800"]}, "half of a surrogate pair"),
        ({"prompt": [{"role": "user", "content": "x", "at": b"x"}]}, "'prompt' holds what is no JSON"),
    ],
)
def test_what_no_template_can_be_handed_is_a_fault(more: dict[str, Any], words: str) -> None:
    found = pair_of({**CALLS, **more})
    assert isinstance(found, Fault)
    assert found.kind == "not_string"
    assert words in found.message


@pytest.mark.parametrize("handed", [{"tokenize": False}, {"return_tensors": "pt"}, {"add_generation_prompt": True}])
def test_what_the_template_is_not_to_be_handed_is_refused(handed: dict[str, Any]) -> None:
    with pytest.raises(TokenisingError, match="the chat template refuses"):
        Pretrained(tokenizer(SEEING))(pair({**CALLS, "chat_template_kwargs": handed}))


def test_of_strings_the_columns_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "strings.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "b", "tools": [{"name": "f"}]}')
    found = preflight(path).findings
    assert found.more_keys == 1
    assert found.first["more_keys"] == f"{path}:1: 'tools': nothing of it is seen: text has no chat template"
