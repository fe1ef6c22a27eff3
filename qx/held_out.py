"""Samples that are held out: which these are, and what an objective says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from generative.objective import Data, Objective
from generative.preference.tokens import Tokens
from lab import streams

T = TypeVar("T")


def divided(samples: Sequence[T], seed: int, share: float) -> tuple[list[T], list[T]]:
    """(to learn from, held out), by seed: of one sample or more at least one is learned from."""
    order = torch.randperm(len(samples), generator=streams.generator(seed, "held out")).tolist()
    count = min(int(share * len(samples)), len(samples) - 1)
    held = set(order[:count])
    return [s for i, s in enumerate(samples) if i not in held], [s for i, s in enumerate(samples) if i in held]


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
