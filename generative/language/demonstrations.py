"""Supervised fine-tuning on rows: demonstrations of any model that judges continuations, without padding.

    loss = -log p(completion, end | prompt) = -sum_t log p(y_t | prompt, y_<t)     (summed over the tokens, in nats)

This is the loss of `sft`, for models that read a row of prompts and continuations (`backbones.continuations`): one
continuation a prompt. A demonstration is tokenised as one side of a pair is (`generative.preference.tokens`), by the
same rules for ends, boundaries and chats; so the chosen sides of pairs are demonstrations as they stand.

A file holds a demonstration a row, `prompt` and `completion`, both strings or both lists of messages; or a pair, with
`chosen` and `rejected`, whose chosen side is learned ("preferred fine-tuning", Rafailov et al. 2023, sec. 6).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from backbones.continuations import Continuations
from generative.jsonl import Fault, listed, show
from generative.language.examples import COLUMNS, ExampleError
from generative.language.tokenizer import TokenizerError
from generative.objective import Batch, Losses
from generative.preference.data import Judge
from generative.preference.pairs import Pair, Text, pair_of, silent, template_of, text_of
from generative.preference.records import RecordError, records
from generative.preference.tokens import PairTokenizer, Tokens

PAIRED = ("chosen", "rejected")  # columns of a row that holds a pair instead

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
    found, doubts = list[Tokens](), dict[str, list[str]]()
    try:
        for place, row in records(path, READ):
            part = _tokenised(row, tokenizer, limit)
            if isinstance(part, Fault):
                if strict:
                    raise ExampleError(f"{place}: {part.message}")
                doubts.setdefault(f"left out, {part.kind.replace('_', ' ')}", []).append(f"{place}: {part.message}")
                continue
            more, cut, tokens = part
            if more:
                words = f"{listed(more)}: the chat template decides what of it is seen"
                doubts.setdefault("more keys", []).append(f"{place}: {words}")
            if not tokens.prompt:
                words = "its prompt is nothing in tokens: the first token of the completion is not scored"
                doubts.setdefault("no prompt", []).append(f"{place}: {words}")
            if cut:
                words = f"the completion ends after {len(tokens.chosen)} of its {len(tokens.chosen) + cut} tokens"
                doubts.setdefault("cut", []).append(f"{place}: {words}: {limit} with the prompt")
            if tokens.merged:
                last = "token" if tokens.merged == 1 else f"{tokens.merged} tokens"
                words = f"the last {last} of the prompt merged with the completion"
                doubts.setdefault("merged", []).append(f"{place}: {words}")
            found.append(tokens)
    except RecordError as error:
        raise ExampleError(str(error)) from None
    if not found:
        why = next(iter(doubts.values()), [f"expected rows with {' and '.join(COLUMNS)}"])[0]
        raise ExampleError(f"{path}: holds no demonstration to learn from; {why}")
    return Demonstrations(found, doubts)


def _tokenised(
    row: dict[str, Any] | Fault, tokenizer: PairTokenizer, limit: int
) -> tuple[list[str], int, Tokens] | Fault:
    """(`Pair.more`, tokens that are cut off, what is left) of a row, or why it is left out."""
    pair = row if isinstance(row, Fault) else demonstration(row)
    if isinstance(pair, Fault):
        return pair
    try:
        whole = dataclasses.replace(tokenizer(pair), rejected=())
    except TokenizerError as error:
        return Fault("not_tokenised", str(error))
    if not whole.chosen:
        return Fault("empty", "nothing of the completion is left in tokens")
    part = whole.cut(limit)
    if not part.chosen:
        return Fault("overlong_prompt", f"its prompt has {len(whole.prompt)} tokens, and there is room for {limit}")
    if not part.scored()[0]:
        return Fault("unscored", "nothing of the completion is scored: one token, and no prompt before it")
    return pair.more(), len(whole.chosen) - len(part.chosen), part


def demonstration(row: dict[str, Any]) -> Pair | Fault:
    """The demonstration of a row as a pair whose sides are the same; of a row with a pair, that pair, also where
    its sides are the same."""
    if row.get("completion") is None and "chosen" in row:
        pair = pair_of(row)
        alike = isinstance(pair, Fault) and pair.kind == "identical" and row.get("prompt") is not None
        return demonstration({**row, "completion": row["chosen"]}) if alike else pair
    texts = list[Text]()
    for column in COLUMNS:
        if row.get(column) is None:
            words = "is null; expected text" if column in row else f"is missing; it holds {show(list(row))}"
            return Fault("missing_column", f"the column {column!r} {words}")
        text = text_of(column, row[column])
        if isinstance(text, Fault):
            return text
        texts.append(text)
    prompt, completion = texts
    if isinstance(prompt, str) != isinstance(completion, str):
        return Fault("not_string", "prompt and completion: expected both strings, or both lists of messages")
    if silent(completion):
        return Fault("empty", "the completion is empty; there is nothing to learn")
    if not isinstance(prompt, str) and not prompt:
        return Fault("empty", "the prompt has no messages; a chat needs one to answer")
    template = template_of(row)
    return template if isinstance(template, Fault) else Pair(prompt, completion, completion, template)
