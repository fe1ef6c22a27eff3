from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generative.language.tokenizer import CharacterTokenizer, TokenizerError


@given(st.text(alphabet="\n#.SGü", max_size=30))
def test_text_comes_back_whatever_padding_surrounds_it(text: str):
    tokenizer = CharacterTokenizer("\n#.SGü")
    tokens = tokenizer.encode(text)
    assert len(tokens) == len(text)
    assert all(3 <= token < tokenizer.size for token in tokens)
    assert tokenizer.decode([tokenizer.bos, *tokens, tokenizer.eos, tokenizer.pad]) == text


def test_the_alphabet_of_texts_is_theirs_and_survives_the_disk(tmp_path: Path):
    tokenizer = CharacterTokenizer.of(["ba\n", "cü"])
    assert tokenizer.alphabet == "\nabcü"
    tokenizer.save(tmp_path / "tokenizer.json")
    assert CharacterTokenizer.load(tmp_path / "tokenizer.json").alphabet == tokenizer.alphabet


def test_an_unknown_character_is_named_with_its_place():
    with pytest.raises(TokenizerError, match=r"character 'x' at 2 of 'abx' is unknown; the alphabet is 'ab'"):
        CharacterTokenizer("ab").encode("abx")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 9, "alphabet": "ab"}', "format 9"),
        ("[]", "not a character"),
        ("{", "not a character"),
        (None, "not a"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TokenizerError, match=f"tokenizer.json: .*{message}"):
        CharacterTokenizer.load(path)


def test_an_alphabet_with_a_character_twice_is_refused():
    with pytest.raises(TokenizerError, match="holds 'a' twice"):
        CharacterTokenizer("aba")
