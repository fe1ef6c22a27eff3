"""Pairs as tokens: one prompt, and what follows it on either side.

A prompt and its completion are tokenised together, so that no token at the boundary is another than the model would
see. Where a tokenizer merges the two across the boundary, the completion begins with the merged token, the end of the
prompt is left out of what both share, and that is counted. These are the ecosystem's rules (trl 1.16, `dpo_trainer`):

    text    the end-of-sequence token is written after a completion that does not end with it
    chat    the model's chat template renders the prompt with the turn that is to be spoken, and the whole conversation;
            it closes the turn itself. It is handed all that the messages hold, and the row's tools and
            chat_template_kwargs; what of it is seen, it decides
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol, runtime_checkable

from generative.jsonl import listed
from generative.language.tokenizer import Tokenizer, TokenizerError
from generative.preference.pairs import Pair, Text
from generative.preference.records import reason


class TokenisingError(TokenizerError):
    """A pair cannot be tokenised; the message says why."""


@dataclass(frozen=True)
class Tokens:
    """A pair as token numbers."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    merged: int = 0
    """Tokens at the end of the prompt that are others with a completion behind them; they are in no part."""

    def scored(self) -> tuple[int, int]:
        """How many tokens of the chosen and of the rejected side have a log-probability: those that have a past."""
        alone = not self.prompt
        return max(len(self.chosen) - alone, 0), max(len(self.rejected) - alone, 0)

    def cut(self, limit: int) -> Tokens:
        """Sequences of `limit` tokens at most, cut at their ends."""
        room = max(limit - len(self.prompt), 0)
        return Tokens(self.prompt[:limit], self.chosen[:room], self.rejected[:room], self.merged)


@runtime_checkable
class PairTokenizer(Protocol):
    """From a pair to its tokens."""

    def __call__(self, pair: Pair) -> Tokens:
        """Raises TokenisingError, or the tokenizer's own error."""
        ...


class Plain:
    """With the lab's own tokenizers: beginning and prompt, completion and end, each by itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __call__(self, pair: Pair) -> Tokens:
        tokenizer = self.tokenizer
        prompt, chosen, rejected = (
            tuple(tokenizer.encode(_string(text))) for text in (pair.prompt, pair.chosen, pair.rejected)
        )
        return Tokens((tokenizer.bos, *prompt), (*chosen, tokenizer.eos), (*rejected, tokenizer.eos))


class Pretrained:
    """With a tokenizer of transformers.

    Args:
        tokenizer: a `PreTrainedTokenizerBase` with an end-of-sequence token.

    Raises:
        TokenisingError: where it has none.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token is None:
            raise TokenisingError(f"{type(tokenizer).__name__} has no end-of-sequence token, which ends a completion")
        self.tokenizer = tokenizer

    def __call__(self, pair: Pair) -> Tokens:
        if pair.chat:
            prompt, *wholes = self._chat(pair)
        else:
            prompt, *wholes = self._text(pair)
        length = min(_common(prompt, whole) for whole in wholes)
        chosen, rejected = (tuple(whole[length:]) for whole in wholes)
        return Tokens(tuple(prompt[:length]), chosen, rejected, merged=len(prompt) - length)

    def _text(self, pair: Pair) -> list[list[int]]:
        prompt, end = _string(pair.prompt), self.tokenizer.eos_token
        sides = [_string(side) for side in (pair.chosen, pair.rejected)]
        ended = [side if side.endswith(end) else side + end for side in sides]
        try:
            return [self.tokenizer(text)["input_ids"] for text in (prompt, *(prompt + side for side in ended))]
        except Exception as error:  # each kind of tokenizer refuses in its own way
            raise TokenisingError(f"the tokenizer refuses: {reason(error)}") from None

    def _chat(self, pair: Pair) -> list[list[int]]:
        if self.tokenizer.chat_template is None:
            raise TokenisingError("a pair of chat messages, and the tokenizer has no chat template")
        prompt, handed = _messages(pair.prompt), pair.handed()
        turns = [prompt, *(prompt + _messages(side) for side in (pair.chosen, pair.rejected))]
        render = self.tokenizer.apply_chat_template
        try:
            found = [
                render(turn, tokenize=True, return_dict=True, add_generation_prompt=number == 0, **handed)["input_ids"]
                for number, turn in enumerate(turns)
            ]
            return [list(map(int, numbers)) for numbers in found]  # a row may hand it what makes them anything
        except Exception as error:  # a template is a program of somebody else's, which refuses as it likes
            raise TokenisingError(f"the chat template refuses: {reason(error)}") from None


def doubts(pair: Pair, tokens: Tokens | None = None) -> Iterator[tuple[str, str]]:
    """(kind, words) of what is doubtful of a pair, and of its tokens where there are some.

    The kinds are more_keys, merged and no_prompt (`generative.preference.preflight`).
    """
    if more := pair.more():
        chat, text = "the chat template decides what of it is seen", "nothing of it is seen: text has no chat template"
        yield "more_keys", f"{listed(more)}: {chat if pair.chat else text}"
    if tokens is not None and tokens.merged:
        last = "token" if tokens.merged == 1 else f"{tokens.merged} tokens"
        advice = "a space there belongs to the beginning of the completion"
        yield "merged", f"the last {last} of the prompt merged with a completion; {advice}"
    if tokens is not None and not tokens.prompt:
        yield "no_prompt", "its prompt is nothing in tokens: the first token of a completion is not scored"


def shortened(what: str, kept: int, whole: int, limit: int | None) -> str:
    """That a completion has `kept` of its `whole` tokens, in words."""
    return f"{what} ends after {kept} of its {whole} tokens: {limit} with the prompt"


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return len(list(takewhile(lambda two: two[0] == two[1], zip(one, other, strict=False))))


def _string(text: Text) -> str:
    if not isinstance(text, str):
        raise TokenisingError("a pair of chat messages, where the model reads plain text")
    return text


def _messages(text: Text) -> list[dict[str, Any]]:
    assert not isinstance(text, str)
    return [message.plain() for message in text]
