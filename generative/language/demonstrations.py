"""Supervised fine-tuning on rows: demonstrations of any model that judges continuations, without padding.

    loss = -log p(completion, end | prompt) = -sum_t log p(y_t | prompt, y_<t)     (summed over the tokens, in nats)

This is the loss of `sft`, for models that read a row of prompts and continuations (`backbones.continuations`): one
continuation a prompt. A demonstration is tokenised as one side of a pair is (`generative.preference.tokens`), by the
same rules for ends, boundaries and chats; so the chosen sides of pairs are demonstrations as they stand.

A file holds a demonstration a row, `prompt` and `completion`, both strings or both lists of messages; or a pair, with
`chosen` and `rejected`, whose chosen side is learned ("preferred fine-tuning", Rafailov et al. 2023, sec. 6). Of a pair
with a prompt the rejected side is not looked at; of one without, what both sides begin with is the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from backbones.continuations import Continuations
from generative.jsonl import Fault, show
from generative.language.examples import COLUMNS, ExampleError
from generative.language.tokenizer import TokenizerError
from generative.objective import Batch, Losses
from generative.preference.data import Judge
from generative.preference.pairs import Pair, Text, pair_of, silent, template_of, text_of
from generative.preference.records import RecordError, records
from generative.preference.tokens import PairTokenizer, Tokens, doubts, shortened

READ = (*COLUMNS, "chosen", "rejected")
"""The columns of demonstrations, and those of pairs."""


class DemonstrationData:
    """Tokenised demonstrations.

    Args:
        demonstrations: one at least; the prompt and the chosen side of each are looked at.

    Attributes:
        lengths: of prompt and completion. int64 [N, 2].
        flat: all tokens, demonstration after demonstration. int64.
    """

    def __init__(self, demonstrations: Sequence[Tokens]) -> None:
        self.lengths = torch.tensor([[len(d.prompt), len(d.chosen)] for d in demonstrations])
        self.flat = torch.tensor([number for d in demonstrations for number in (*d.prompt, *d.chosen)])
        self._first = self.lengths.sum(1).cumsum(0) - self.lengths.sum(1)

    def __len__(self) -> int:
        return len(self.lengths)

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        """`tokens` [B, T] and `lengths` [B, 2]: prompt and completion of each, then zeros."""
        lengths = self.lengths[index]
        total = lengths.sum(1, keepdim=True)
        step = torch.arange(int(total.max()))
        places = (self._first[index][:, None] + step).clamp(max=len(self.flat) - 1)
        return {"tokens": torch.where(step < total, self.flat[places], 0), "lengths": lengths}


class FineTuning:
    """The objective, for a model that is a `Judge` and `DemonstrationData`.

    Metrics: `nll_per_token`, the loss over the number of tokens that it sums.
    """

    def loss(self, model: nn.Module, batch: Batch, key: Int64[Tensor, "B"]) -> Losses:
        """-log p(completion, end | prompt) [B], in nats. It draws nothing from `key`."""
        lengths, tokens = batch["lengths"], batch["tokens"]
        parts = lengths.tolist()
        row = Continuations([prompt for prompt, _ in parts], [[length] for _, length in parts], tokens.device)
        inside = torch.arange(tokens.shape[1], device=tokens.device) < lengths.sum(1, keepdim=True)
        logp = cast(Judge, model).judge(tokens[inside], row)  # [M]
        value = -row.sums(logp)  # [B]
        counts = row.sums(torch.ones_like(logp))  # without a prompt the first token is not scored
        return Losses(value, {"nll_per_token": value / counts.clamp(min=1)})


@dataclass(frozen=True)
class Demonstrations:
    """What a file holds for a model."""

    tokens: list[Tokens]
    """The demonstrations that fit: the prompt, and the completion as the chosen side. The rejected side is empty."""
    doubts: dict[str, list[str]]
    """What was noticed, and of which rows: each list has "PLACE: what" in the order of the file."""


def read(path: Path, tokenizer: PairTokenizer, limit: int, *, strict: bool = False) -> Demonstrations:
    """All demonstrations of a file or folder (`generative.preference.records`), in order.

    Args:
        path: what to read.
        tokenizer: of the model that is to learn.
        limit: the longest sequence in tokens. What is longer is cut, and left out where its prompt leaves no room.
        strict: stop at the first row that is left out.

    Raises:
        ExampleError: for a file that cannot be read, or of which nothing is left to learn from; with `strict` for a row
            that is no demonstration, that the tokenizer refuses, or whose prompt leaves no room.
    """
    found, noted = list[Tokens](), dict[str, list[str]]()
    try:
        for place, row in records(path, READ):
            part = _tokenised(row, tokenizer, limit)
            if isinstance(part, Fault):
                if strict:
                    raise ExampleError(f"{place}: {part.message}")
                noted.setdefault(f"left out, {part.kind.replace('_', ' ')}", []).append(f"{place}: {part.message}")
                continue
            pair, whole, tokens = part
            for kind, words in doubts(pair, tokens):
                noted.setdefault(kind.replace("_", " "), []).append(f"{place}: {words}")
            if len(tokens.chosen) < whole:
                words = shortened("the completion", len(tokens.chosen), whole, limit)
                noted.setdefault("cut", []).append(f"{place}: {words}")
            found.append(tokens)
    except RecordError as error:
        raise ExampleError(str(error)) from None
    if not found:
        why = next(iter(noted.values()), [f"expected rows with {' and '.join(COLUMNS)}"])[0]
        raise ExampleError(f"{path}: holds no demonstration to learn from; {why}")
    return Demonstrations(found, noted)


def _tokenised(row: dict[str, Any] | Fault, tokenizer: PairTokenizer, limit: int) -> tuple[Pair, int, Tokens] | Fault:
    """(the demonstration, how long its completion is in tokens, what is left once it is cut), or why it is left out."""
    pair = row if isinstance(row, Fault) else demonstration(row)
    if isinstance(pair, Fault):
        return pair
    try:
        whole = replace(tokenizer(pair), rejected=())
    except TokenizerError as error:
        return Fault("not_tokenised", str(error))
    if not whole.chosen:
        return Fault("empty", "nothing of the completion is left in tokens")
    part = whole.cut(limit)
    if not part.chosen:
        return Fault("overlong_prompt", f"its prompt has {len(whole.prompt)} tokens, and there is room for {limit}")
    if not part.scored()[0]:
        return Fault("unscored", "nothing of the completion is scored: one token, and no prompt before it")
    return pair, len(whole.chosen), part


def demonstration(row: dict[str, Any]) -> Pair | Fault:
    """The demonstration of a row, or of the pair in it, as a pair whose sides are the same."""
    paired = row.get("completion") is None and "chosen" in row
    if paired and row.get("prompt") is None:
        pair = pair_of(row)
        return pair if isinstance(pair, Fault) else replace(pair, rejected=pair.chosen)
    columns = ("prompt", "chosen") if paired else COLUMNS
    texts = list[Text]()
    for column in columns:
        if row.get(column) is None:
            words = "is null; expected text" if column in row else f"is missing; it holds {show(list(row))}"
            return Fault("missing_column", f"the column {column!r} {words}")
        text = text_of(column, row[column])
        if isinstance(text, Fault):
            return text
        texts.append(text)
    prompt, completion = texts
    if isinstance(prompt, str) != isinstance(completion, str):
        return Fault("not_string", f"{' and '.join(columns)}: expected both strings, or both lists of messages")
    if silent(completion):
        return Fault("empty", f"the {'chosen side' if paired else 'completion'} is empty; there is nothing to learn")
    if not isinstance(prompt, str) and not prompt:
        return Fault("empty", "the prompt has no messages; a chat needs one to answer")
    template = template_of(row)
    return template if isinstance(template, Fault) else Pair(prompt, completion, completion, template)
