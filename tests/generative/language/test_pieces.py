"""The tokenizer of scored pieces against Hugging Face's byte-pair encoding with the same merges."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, trainers

from generative.language.pieces import PieceTokenizer
from generative.language.tokenizer import Tokenizer as Seam
from generative.language.tokenizer import TokenizerError

TEXT = "the cat sat on the mat and the rat ran from the cat that sat on that mat"
SPECIAL = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{byte:02X}>" for byte in range(256))]


def trained() -> tuple[PieceTokenizer, Tokenizer]:
    """Ours and theirs, from one training: a piece's score is minus the rank of the merge that made it."""
    learner = Tokenizer(models.BPE())
    learner.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=40, show_progress=False))
    model = json.loads(learner.to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].get)
    pieces = [*SPECIAL, *learned]
    rank = {"".join(pair): i for i, pair in reversed(list(enumerate(model["merges"])))}
    scores = [-float(rank.get(piece, 1000)) for piece in pieces]
    theirs = models.BPE(
        {piece: token for token, piece in enumerate(pieces)},
        [tuple(pair) for pair in model["merges"]],
        byte_fallback=True,
    )
    return PieceTokenizer(pieces, scores), Tokenizer(theirs)


OURS, THEIRS = trained()


@settings(deadline=None)
@given(st.lists(st.sampled_from([*TEXT.split(), *"theaomn", "ü", "語", "\n", ""]), max_size=12).map(" ".join))
def test_tokens_are_those_of_hugging_faces_merges(text: str):
    assert OURS.encode(text) == (THEIRS.encode(" " + text).ids if text else [])


@given(st.text(max_size=20))
def test_any_text_comes_back_after_a_beginning(text: str):
    tokens = OURS.encode(text)
    assert OURS.decode([OURS.bos, *tokens]) == text
    assert OURS.decode([OURS.bos, *tokens, OURS.eos, OURS.pad]) == text
    assert OURS.decode(tokens) == (" " + text if text else "")  # a continuation keeps its space


def test_it_merges_at_all_and_fits_the_seam():
    assert len(OURS.encode(TEXT)) < 0.7 * len(TEXT)
    assert isinstance(OURS, Seam)
    assert (OURS.size, OURS.bos, OURS.eos) == (len(OURS.pieces), 1, 1)


def test_of_equal_unions_the_first_is_made_and_of_unequal_ones_the_best():
    tokenizer = PieceTokenizer([*SPECIAL, *" abc", "aa", "ab", "bc"], [0.0] * 263 + [-1.0, -2.0, -1.5])

    def cut(text: str) -> list[str]:
        return [tokenizer.pieces[token] for token in tokenizer.encode(text)]

    assert cut("aaa") == [" ", "aa", "a"]
    assert cut("abc") == [" ", "a", "bc"]
    assert cut("aab") == [" ", "aa", "b"]
    assert cut("\u00e9") == [" ", "<0xC3>", "<0xA9>"]


def test_bytes_that_are_no_text_are_shown_as_such():
    assert OURS.decode([3 + 0xC3, 3 + 0x41]) == "\N{REPLACEMENT CHARACTER}A"


def test_llama2cs_file_and_our_own_hold_the_same(tmp_path: Path):
    parts = [struct.pack("<i", max(len(piece.encode()) for piece in OURS.pieces))]
    for piece, score in zip(OURS.pieces, OURS.scores, strict=True):
        parts.append(struct.pack("<fi", score, len(piece.encode())) + piece.encode())
    path = tmp_path / "tok.bin"
    path.write_bytes(b"".join(parts))
    read = PieceTokenizer.read(path)
    read.save(tmp_path / "tokenizer.json")
    for again in (read, PieceTokenizer.load(tmp_path / "tokenizer.json")):
        assert again.pieces == OURS.pieces
        assert again.scores == OURS.scores
    path.write_bytes(b"".join(parts)[:-1])
    with pytest.raises(TokenizerError, match=r"tok.bin: not a tokenizer of llama2.c \(a piece of"):
        PieceTokenizer.read(path)
    path.write_bytes(b"".join(parts[:20]))
    with pytest.raises(TokenizerError, match=r"tok.bin: .* expected the bytes"):
        PieceTokenizer.read(path)
    with pytest.raises(TokenizerError, match=r"none.bin: not a tokenizer"):
        PieceTokenizer.read(tmp_path / "none.bin")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": 9, "kind": "pieces"}', "format 9"),
        ('{"format": 1, "kind": "characters"}', "'characters', tokenizer format 1; expected 'pieces'"),
        ('{"format": 1, "kind": "pieces", "pieces": ["a"], "scores": []}', "1 pieces and 0 scores"),
        ("[]", "not a tokenizer of pieces"),
        (None, "not a tokenizer of pieces"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TokenizerError, match=f"tokenizer.json: .*{message}"):
        PieceTokenizer.load(path)
