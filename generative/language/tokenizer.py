"""Text to numbers and back. The seam is `Tokenizer`; the lab's own tokenizer gives every character one number.

The numbers 0, 1, 2 are padding, beginning and end; the characters follow in the order of the alphabet. The alphabet is
all there is to save, as JSON with a format version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

FORMAT = 1


class TokenizerError(ValueError):
    """A text holds a character that the alphabet lacks, or a file is no tokenizer."""


@runtime_checkable
class Tokenizer(Protocol):
    """What the language models need of a tokenizer."""

    size: int
    """V: tokens are 0 ... V-1."""
    pad: int
    bos: int
    eos: int

    def encode(self, text: str) -> list[int]:
        """The tokens of the text, without beginning and end. Raises TokenizerError for text it cannot write."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of the tokens; padding, beginning and end write nothing."""
        ...

    def save(self, path: Path) -> None:
        """Write the vocabulary as JSON."""
        ...


class CharacterTokenizer:
    """One token for each character of an alphabet.

    Args:
        alphabet: the characters, each once.

    Raises:
        TokenizerError: when a character appears twice.
    """

    pad, bos, eos = 0, 1, 2

    def __init__(self, alphabet: str) -> None:
        if len(set(alphabet)) < len(alphabet):
            twice = next(c for c in alphabet if alphabet.count(c) > 1)
            raise TokenizerError(f"the alphabet {alphabet!r} holds {twice!r} twice")
        self.alphabet = alphabet
        self.size = 3 + len(alphabet)
        self._number = {character: 3 + i for i, character in enumerate(alphabet)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> CharacterTokenizer:
        """The tokenizer whose alphabet is every character of `texts`, sorted."""
        return cls("".join(sorted(set().union(*texts))))

    @classmethod
    def load(cls, path: Path) -> CharacterTokenizer:
        """Read what `save` wrote. Raises TokenizerError when the file is missing, damaged or of another format."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            version, alphabet = stored["format"], stored["alphabet"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TokenizerError(f"{path}: not a character tokenizer ({error})") from None
        if version != FORMAT or not isinstance(alphabet, str):
            raise TokenizerError(
                f"{path}: tokenizer format {version!r}; this version of quincunx reads format {FORMAT}"
            )
        return cls(alphabet)

    def save(self, path: Path) -> None:
        stored = {"format": FORMAT, "kind": "characters", "alphabet": self.alphabet}
        path.write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        try:
            return [self._number[character] for character in text]
        except KeyError as error:
            place = text.index(error.args[0])
            known = f"the alphabet is {self.alphabet!r}"
            raise TokenizerError(
                f"character {error.args[0]!r} at {place} of {text[:60]!r} is unknown; {known}"
            ) from None

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.alphabet[token - 3] for token in tokens if token >= 3)
