"""Samples that are held out: which these are, and what an objective says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor, nn

from generative.objective import Data, Objective
from generative.preference.tokens import Tokens
from lab import console, streams


def divided(tokens: Sequence[Tokens], seed: int, share: float) -> tuple[list[Tokens], list[Tokens]]:
    """(to learn from, held out), by seed; at most that share is held out, and at least one is learned from.

    All of one prompt are on one side, so that what is held out was not learned in other words; each text without a
    prompt is by itself. Only where all have one prompt, or none, they are held out text by text: a side that is in
    several pairs may then be learned and judged, which is said. So it is where none of the groups fits into the share,
    and nothing is held out.

    Args:
        tokens: one at least.
        seed: draws the groups.
        share: of all, from 0 to below 1.
    """
    alone = len({each.prompt for each in tokens}) == 1
    groups = [_text(each) if alone else each.prompt or _text(each) for each in tokens]
    most = min(int(share * len(tokens)), len(tokens) - 1)
    taken = _taken(groups, seed, most)
    learned = [each for i, each in enumerate(tokens) if i not in taken]
    held = [each for i, each in enumerate(tokens) if i in taken]
    if share and not held:
        least = min(Counter(groups).values())
        words = f"all of one {'text' if alone else 'prompt'} stay together, which are {least:,} at least"
        _say(f"nothing is held out: {words}, and --held-out {share:g} of {len(tokens):,} is {most:,}")
    elif held and alone:
        known = {side for each in learned for side in (each.chosen, each.rejected) if side}
        again = sum(not known.isdisjoint((each.chosen, each.rejected)) for each in held)
        _say(f"all have one prompt, so texts are held out; {again:,} of {len(held):,} have a side that is also learned")
    return learned, held


def _say(words: str) -> None:
    console.err.print(f"[dim]{console.escape(words)}[/]", soft_wrap=True)


def _text(tokens: Tokens) -> Hashable:
    """The same for a pair and for one that says the opposite."""
    return tokens.prompt, frozenset((tokens.chosen, tokens.rejected))


def _taken(groups: Sequence[Hashable], seed: int, most: int) -> set[int]:
    """Places of whole groups, drawn by seed while no more than so many are taken."""
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    listed, taken = list(places.values()), set[int]()
    for number in torch.randperm(len(listed), generator=streams.generator(seed, "held out")).tolist():
        if len(taken) + len(listed[number]) <= most:
            taken.update(listed[number])
    return taken


def different(tokens: Iterable[Tokens], count: int) -> list[Tokens]:
    """The first of each prompt that is not empty, so many at most."""
    found: dict[tuple[int, ...], Tokens] = {}
    for each in tokens:
        if each.prompt:
            found.setdefault(each.prompt, each)
    return list(found.values())[:count]


@torch.no_grad()
def means(
    objective: Objective, model: nn.Module, data: Data, device: torch.device, batch_size: int = 16
) -> dict[str, Tensor]:
    """The mean loss and metrics over all samples, float64 on the CPU.

    An objective that looks at a whole batch (`generative.objective.Whole`: of preferences kto, aot, aot-unpaired) looks
    at `batch_size` samples here, and the last time at what is left. Its loss is then comparable with that of training
    where batches are as large, and depends on the order of the samples.

    Args:
        objective: draws nothing that counts: the key of a sample is its index.
        model: in the mode it is to answer in, on the device.
        data: one sample at least.
        device: of the model.
        batch_size: samples at a time.
    """
    sums: dict[str, Tensor] = {}
    for index in torch.split(torch.arange(len(data)), batch_size):
        batch = {name: tensor.to(device) for name, tensor in data.batch(index).items()}
        told = objective.loss(model, batch, index.to(device))
        for name, value in {"loss": told.value, **told.metrics}.items():
            sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64)) + value.double().sum().cpu()
    return {name: total / len(data) for name, total in sums.items()}
