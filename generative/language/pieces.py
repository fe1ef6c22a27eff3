"""A tokenizer of scored pieces: SentencePiece's byte-pair encoding, as llama2.c stores and applies it.

A text, with a space before it, is cut into characters; a character that is no piece becomes its UTF-8 bytes. Then,
again and again, the two neighbours whose union has the highest score become one piece (the first such pair, where
several are equal), until no union is a piece.

Sources: Sennrich, Haddow & Birch 2016, alg. 1; Kudo & Richardson 2018, sec. 3.1; Karpathy, llama2.c (2023),
`tokenizer.py: export` (the file) and `run.c: encode, decode` (the procedure).
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from generative.language.tokenizer import FORMAT, TokenizerError

BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class PieceTokenizer:
    """One token for each of a list of pieces.

    The text ends where the next would begin: llama2.c's models know no other end, so `eos` is `bos`.

    Args:
        pieces: token -> its text; 0 is the unknown, 1 the beginning, 2 the end, then `<0x00>` ... `<0xFF>`.
        scores: token -> how early it is made of its parts; higher is earlier.

    Raises:
        TokenizerError: when there are not as many scores as pieces, or the bytes are not in their place.
    """

    pad, bos, eos = 0, 1, 1

    def __init__(self, pieces: Sequence[str], scores: Sequence[float]) -> None:
        if len(pieces) != len(scores):
            raise TokenizerError(f"{len(pieces)} pieces and {len(scores)} scores: expected one for each")
        if [m.group(1) for m in map(BYTE.fullmatch, pieces[3:259]) if m] != [f"{b:02X}" for b in range(256)]:
            raise TokenizerError(f"pieces 3 to 258 are {pieces[3:5]} ...: expected the bytes <0x00> to <0xFF>")
        self.pieces, self.scores, self.size = list(pieces), list(scores), len(pieces)
        self._number = {piece: token for token, piece in reversed(list(enumerate(pieces))) if token >= 3}

    @classmethod
    def read(cls, path: Path) -> PieceTokenizer:
        """llama2.c's tokenizer file: the longest piece as int32, then of each float32 score, int32 length and bytes.

        Raises TokenizerError when the file is missing or something else.
        """
        pieces, scores, at = [], [], 4
        try:
            payload = path.read_bytes()
            while at < len(payload):
                score, length = struct.unpack_from("<fi", payload, at)
                piece = payload[at + 8 : at + 8 + length]
                if length < 0 or len(piece) < length:
                    raise TokenizerError(f"a piece of {length} bytes at byte {at}, {len(piece)} are left")
                pieces.append(piece.decode())
                scores.append(score)
                at += 8 + length
            return cls(pieces, scores)
        except (OSError, struct.error, ValueError) as error:
            raise TokenizerError(f"{path}: not a tokenizer of llama2.c ({error})") from None

    @classmethod
    def load(cls, path: Path) -> PieceTokenizer:
        """Read what `save` wrote. Raises TokenizerError when the file is missing, damaged or of another format."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            version, kind = stored["format"], stored["kind"]
            if (version, kind) == (FORMAT, "pieces"):
                return cls(stored["pieces"], stored["scores"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TokenizerError(f"{path}: not a tokenizer of pieces ({error})") from None
        raise TokenizerError(
            f"{path}: {kind!r}, tokenizer format {version!r}; expected 'pieces', format {FORMAT} of this version"
        )

    def save(self, path: Path) -> None:
        stored = {"format": FORMAT, "kind": "pieces", "pieces": self.pieces, "scores": self.scores}
        path.write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """The tokens of the text, without beginning and end; its time grows with the square of the text's length."""
        tokens: list[int] = []
        for character in " " + text if text else "":
            known = self._number.get(character)
            tokens += [3 + byte for byte in character.encode()] if known is None else [known]
        while True:
            unions = [self._number.get(self.pieces[a] + self.pieces[b]) for a, b in pairwise(tokens)]
            found = [(self.scores[union], -place, union) for place, union in enumerate(unions) if union is not None]
            if not found:
                return tokens
            _, place, union = max(found)
            tokens[-place : -place + 2] = [union]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of the tokens. After a beginning, the space that `encode` put before the text is taken away again;
        bytes that are no UTF-8 are shown as the replacement character."""
        written = b""
        for before, token in pairwise([self.size, *tokens]):  # the first has none before it
            if token < 3:
                continue
            byte = BYTE.fullmatch(self.pieces[token])
            piece = bytes([int(byte.group(1), 16)]) if byte else self.pieces[token].encode()
            written += piece[1:] if before == self.bos and piece.startswith(b" ") else piece
        return written.decode(errors="replace")
