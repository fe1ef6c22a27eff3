"""Pairs as tokens: where a completion begins, how it ends, and what is said of those that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast as Fast

from generative.language.tokenizer import CharacterTokenizer
from generative.preference.data import PairData, packed
from generative.preference.pairs import Message, Pair, PairError, write
from generative.preference.preflight import DOUBTFUL, UNTEACHING, preflight
from generative.preference.tokens import Plain, Pretrained, TokenisingError, Tokens

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<user>", "<assistant>"]


def tokenizer(template: str | None = TEMPLATE, end: str | None = "</s>") -> Any:
    """Bytes, of which "a" and "b" merge, and " " and "c"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("Ġ", "c")]
    vocabulary = {piece: i for i, piece in enumerate([*alphabet, *("".join(each) for each in merges)])}
    made = Tokenizer(models.BPE(vocabulary, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    found = Fast(tokenizer_object=made, eos_token=end, additional_special_tokens=SPECIAL)
    found.chat_template = template
    return found


def spoken(tokens: Tokens) -> tuple[str, str, str]:
    decode = tokenizer().decode
    return decode(list(tokens.prompt)), decode(list(tokens.chosen)), decode(list(tokens.rejected))


def test_a_text_is_ended_where_it_does_not_end_itself() -> None:
    found = Pretrained(tokenizer())(Pair("x", "y", "z</s>"))
    assert spoken(found) == ("x", "y</s>", "z</s>")
    assert found.merged == 0
    assert spoken(Pretrained(tokenizer())(Pair("x", "y</s>\n", "z</s> "))) == ("x", "y</s>\n</s>", "z</s> </s>")


def test_what_merges_across_the_boundary_is_the_completions_and_is_counted() -> None:
    """After "xa" comes "b" on one side: "ab" is one token, and both sides begin where they part from the prompt."""
    for chosen, rejected in (("b", "y"), ("y", "b")):
        found = Pretrained(tokenizer())(Pair("xa", chosen, rejected))
        assert spoken(found) == ("x", f"a{chosen}</s>", f"a{rejected}</s>")
        assert found.merged == 1
    assert Pretrained(tokenizer())(Pair("x", " c", "y")).merged == 0  # inside a completion is no boundary


def test_a_chat_is_rendered_by_its_template_with_the_turn_that_is_to_be_spoken() -> None:
    pair = Pair((Message("user", "x"),), (Message("assistant", "y"),), (Message("assistant", "z"),))
    assert spoken(Pretrained(tokenizer())(pair)) == ("<user>x</s><assistant>", "y</s>", "z</s>")


CHAT = Pair((Message("user", "x"),), (Message("assistant", "y"),), (Message("assistant", "z"),))


def test_what_cannot_be_tokenised_says_why() -> None:
    with pytest.raises(TokenisingError, match="has no end-of-sequence token"):
        Pretrained(tokenizer(end=None))
    with pytest.raises(TokenisingError, match="has no chat template"):
        Pretrained(tokenizer(template=None))(CHAT)
    with pytest.raises(TokenisingError, match="the chat template refuses: only the user speaks"):
        Pretrained(tokenizer("{{ raise_exception('only the user speaks') }}"))(CHAT)
    with pytest.raises(TokenisingError, match="a pair of chat messages, where the model reads plain text"):
        Plain(CharacterTokenizer("xyz"))(CHAT)


def test_the_labs_own_tokenizers_begin_and_end() -> None:
    assert Plain(CharacterTokenizer("xyz"))(Pair("x", "yy", "z")) == Tokens((1, 3), (4, 4, 2), (5, 2))


@pytest.mark.parametrize(
    ("limit", "kept"), [(9, (2, 3, 2)), (4, (2, 2, 2)), (3, (2, 1, 1)), (2, (2, 0, 0)), (1, (1, 0, 0))]
)
def test_sequences_are_cut_at_their_ends(limit: int, kept: tuple[int, int, int]) -> None:
    found = Tokens((1, 3), (4, 4, 2), (5, 2)).cut(limit)
    assert tuple(map(len, (found.prompt, found.chosen, found.rejected))) == kept


def test_preflight_counts_what_the_model_will_see(tmp_path: Path) -> None:
    """With room for six tokens."""
    rows = [
        Pair("xa", "b", "y"),  # merged
        Pair("xx", "yyyyyy", "z"),  # the chosen is cut
        Pair("xx", "z", "yyyyyyy"),  # the rejected is cut
        Pair("xxxxxx", "y", "z"),  # no room
        Pair("xx", "yyyyyy", "yyyyzz"),  # the same once both are cut
        CHAT,
        Pair("x", "y", "z"),
    ]
    path = tmp_path / "pairs.jsonl"
    write(path, rows)
    checked = preflight(path, Pretrained(tokenizer()), 6)
    found = checked.findings
    assert (found.pairs, found.usable, found.dropped) == (7, 5, 2)
    assert (found.merged, found.overlong_chosen, found.overlong_rejected) == (1, 1, 1)
    assert (found.overlong_prompt, found.identical_when_cut) == (1, 1)
    assert found.first["overlong_prompt"] == f"{path}:4: its prompt has 6 tokens, and there is room for 6"
    assert (
        found.first["overlong_chosen"] == f"{path}:2: the chosen side ends after 4 of its 7 tokens: 6 with the prompt"
    )
    assert len(checked.tokens) == len(checked.pairs) == len(checked.lengths) == 5
    assert all(len(t.prompt) + max(len(t.chosen), len(t.rejected)) <= 6 for t in checked.tokens)
    assert checked.lengths[1] == (2, 7, 2)
    assert found.chosen_longer == 1 / 5
    with pytest.raises(PairError, match=r"pairs\.jsonl:4: its prompt has 6 tokens"):
        preflight(path, Pretrained(tokenizer()), 6, strict=True)
    plain = preflight(path, Pretrained(tokenizer(template=None)), 6).findings
    assert plain.first["not_tokenised"] == f"{path}:6: a pair of chat messages, and the tokenizer has no chat template"


def test_without_a_prompt_in_tokens_the_first_of_a_side_is_not_scored_and_that_is_said(tmp_path: Path) -> None:
    """The tokens that have a log-probability are those that the row scores; sides of none are dropped."""
    path = tmp_path / "pairs.jsonl"
    write(path, [Pair("", "yy", "zz"), Pair("a", "b", "y"), Pair("", "</s>", "z"), Pair("x", "y", "z")])
    for limit, kept, unscored, bare in ((None, 3, 1, 2), (2, 3, 1, 2), (1, 0, 3, 0)):
        checked = preflight(path, Pretrained(tokenizer()), limit)
        found = checked.findings
        assert (found.usable, found.unscored, found.no_prompt) == (kept, unscored, bare)
        if not checked.tokens:
            continue
        _, row = packed(PairData(checked.tokens).batch(torch.arange(kept)))
        counts = row.owner.bincount(minlength=2 * kept).view(-1, 2).tolist()
        assert counts == [list(tokens.scored()) for tokens in checked.tokens]
        assert found.first["no_prompt"].startswith(f"{path}:1: its prompt is nothing in tokens")
        words = "nothing of the chosen side is scored: one token, and no prompt before it"
        assert found.first["unscored"] == f"{path}:3: {words}"


def test_a_side_of_which_nothing_is_left_in_tokens_is_empty(tmp_path: Path) -> None:
    """The template writes of an answer only what it knows."""
    blind = (
        "{% for m in messages %}{% if m['content'] != 'z' %}<{{ m['role'] }}>{{ m['content'] }}{% endif %}{% endfor %}"
    )
    path = tmp_path / "pairs.jsonl"
    write(path, [CHAT])
    found = preflight(path, Pretrained(tokenizer(blind))).findings
    assert (found.usable, found.empty) == (0, 1)
    assert found.first["empty"].startswith(f"{path}:1: nothing of the rejected side is left in tokens")


texts = st.text(st.sampled_from("abc xyz\n"), max_size=6)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(texts, texts, texts), max_size=6), st.integers(1, 12))
def test_every_row_is_taken_or_counted_and_what_is_taken_can_teach(
    tmp_path: Path, rows: list[tuple[str, str, str]], limit: int
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(json.dumps(dict(zip(("prompt", "chosen", "rejected"), row, strict=True))) + "\n" for row in rows)
    )
    checked = preflight(path, Pretrained(tokenizer()), limit)
    found = checked.findings
    assert found.pairs == len(rows)
    assert found.usable + sum(getattr(found, kind) for kind in UNTEACHING) == found.pairs
    assert len(checked.tokens) == found.usable
    assert set(found.first) == {kind for kind in (*UNTEACHING, *DOUBTFUL) if getattr(found, kind)}
    for tokens in checked.tokens:
        assert tokens.chosen
        assert tokens.rejected
        assert tokens.prompt or min(len(tokens.chosen), len(tokens.rejected)) > 1
        assert tokens.chosen != tokens.rejected
        assert len(tokens.prompt) + max(len(tokens.chosen), len(tokens.rejected)) <= limit
