"""Pairs as a trainer takes them: token numbers without padding, and what the reference says of each side.

The reference does not change, so it is asked once, before the first update, and its answers stand with the data. A
batch travels as a rectangle, as all data does, with the lengths of its parts; `packed` makes one row of it, in which
nothing is filled up and every prompt stands once (`backbones.continuations`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from backbones.continuations import Continuations
from generative.objective import Batch
from generative.preference.tokens import Tokens
from generative.saved import ModelError
from generative.shares import Precision, cast

ROUNDING = 1e-3
"""Nats above 0 that a sum of log-probabilities may have; of torch's own cross-entropy it is never above."""

Progress = Callable[[int], None]


@runtime_checkable
class Judge(Protocol):
    """A language model, as preferences see it: a module with this method."""

    def judge(self, tokens: Int64[Tensor, "N"], row: Continuations) -> Float[Tensor, "M"]:
        """Natural log-probability of each token that the row scores."""
        ...


class PairData:
    """Tokenised pairs with the reference's log-probabilities.

    Args:
        pairs: one at least.
        reference: log ref of the chosen and of the rejected of each, in nats; None where no loss looks at it.

    Attributes:
        lengths: of prompt, chosen and rejected. int64 [N, 3].
        flat: all tokens, pair after pair. int64.
    """

    def __init__(self, pairs: Sequence[Tokens], reference: Float[Tensor, "N 2"] | None = None) -> None:
        self.lengths = torch.tensor([[len(p.prompt), len(p.chosen), len(p.rejected)] for p in pairs])
        self.reference = torch.zeros(len(pairs), 2) if reference is None else reference
        self.flat = torch.tensor(
            [number for p in pairs for part in (p.prompt, p.chosen, p.rejected) for number in part]
        )
        self._first = self.lengths.sum(1).cumsum(0) - self.lengths.sum(1)

    def __len__(self) -> int:
        return len(self.lengths)

    def prompt(self, index: int) -> list[int]:
        """The tokens of one prompt."""
        first = int(self._first[index])
        return self.flat[first : first + int(self.lengths[index, 0])].tolist()

    def batch(self, index: Int64[Tensor, "B"]) -> Batch:
        """`tokens` [B, T], `lengths` [B, 3], `reference` [B, 2]: prompt, chosen and rejected of each, then zeros."""
        lengths = self.lengths[index]
        inside = _inside(lengths)
        places = self._first[index][:, None] + torch.arange(inside.shape[1])
        tokens = torch.where(inside, self.flat[places.clamp(max=len(self.flat) - 1)], 0)
        return {"tokens": tokens, "lengths": lengths, "reference": self.reference[index]}


def packed(batch: Batch, *, shared: bool = True) -> tuple[Int64[Tensor, "N"], Continuations]:
    """The row of a batch: of each pair the prompt, chosen and rejected; not `shared`, the prompt before each side."""
    lengths, tokens = batch["lengths"], batch["tokens"]
    parts = lengths.tolist()
    flat = tokens[_inside(lengths)]
    if shared:
        row = Continuations([p for p, _, _ in parts], [[c, r] for _, c, r in parts], tokens.device)
        return flat, row
    order, first = list[Tensor](), 0
    for p, c, r in parts:
        prompt = torch.arange(first, first + p)
        order += [
            prompt,
            torch.arange(first + p, first + p + c),
            prompt,
            torch.arange(first + p + c, first + p + c + r),
        ]
        first += p + c + r
    twice = [length for p, _, _ in parts for length in (p, p)]
    row = Continuations(twice, [[length] for _, c, r in parts for length in (c, r)], tokens.device)
    return flat[torch.cat(order).to(tokens.device)], row


def joined(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Sequence[int]]], device: torch.device
) -> tuple[Int64[Tensor, "N"], Continuations]:
    """The row of prompts with their completions: each prompt once, and after it all of its own.

    Args:
        prompts: tokens of each.
        completions: of each prompt, equally many, each one token or more.
        device: of both that are returned.

    Raises:
        ValueError: for no prompt, an empty completion, or unequally many.
    """
    lengths = [[len(completion) for completion in each] for each in completions]
    row = Continuations([len(prompt) for prompt in prompts], lengths, device)
    parts = [part for prompt, each in zip(prompts, completions, strict=True) for part in (prompt, *each)]
    return torch.tensor([token for part in parts for token in part], device=device), row


def judged(
    model: Judge,
    pairs: PairData,
    found: Float[Tensor, "N 2"],
    *,
    device: torch.device,
    precision: Precision = "float32",
    tokens: int = 16_384,
) -> Iterator[int]:
    """Fill in what a model says of each side, in nats, and yield how many pairs are done after each portion.

    Args:
        model: in the mode it is in.
        pairs: all are asked.
        found: float64 on the CPU. Portions in which nothing is nan are done; the others are written.
        device: of the model.
        precision: what it computes in.
        tokens: at a time, or one pair where that is longer.

    Raises:
        ModelError: where what it says is no finite log-probability; of that portion nothing is filled in.
    """
    done = 0
    for index in _portions(pairs.lengths.sum(1), tokens):
        done += len(index)
        if found[index].isnan().any():
            batch = {name: tensor.to(device) for name, tensor in pairs.batch(index).items()}
            with torch.no_grad(), cast(precision, device.type):
                flat, row = packed(batch)
                told = row.sums(model.judge(flat, row)).view(-1, 2).double().cpu()
            if not (fine := credible(told)).all():
                place, side = (~fine).nonzero()[0].tolist()
                raise ModelError(
                    f"the model says {told[place, side]:.4g} nats of the {('chosen', 'rejected')[side]} side of pair "
                    f"{int(index[place]) + 1} of the {len(pairs)} asked here (rows that were dropped do not count, and "
                    "what is held out is asked by itself); expected a finite number, 0 at most: its weights are "
                    "damaged, or too large for what it computes in"
                )
            found[index] = told
        yield done


def credible(told: Float[Tensor, "N 2"]) -> Bool[Tensor, "N 2"]:
    """Where numbers can be log-probabilities of what was said: finite, and not above 0 but for rounding."""
    return told.isfinite() & (told <= ROUNDING)


def _portions(size: Int64[Tensor, "N"], most: int) -> Iterator[Int64[Tensor, "B"]]:
    """Indices by length, as many at a time as fit: alike lengths fill little up."""
    taken, total = list[int](), 0
    for index in size.argsort(stable=True).tolist():
        if taken and total + int(size[index]) > most:
            yield torch.tensor(taken)
            taken, total = [], 0
        taken.append(index)
        total += int(size[index])
    if taken:
        yield torch.tensor(taken)


def _inside(lengths: Int64[Tensor, "B 3"]) -> Bool[Tensor, "B T"]:
    total = lengths.sum(1)
    return torch.arange(int(total.max()), device=lengths.device) < total[:, None]
