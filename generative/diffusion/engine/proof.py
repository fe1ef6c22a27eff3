"""Does a sample depend on its company here? Tried on the device, in the shape and precision that it is asked of.

Outside the network all arithmetic of the engine is elementwise, so a sample is the same whoever rides along wherever
the network's rows are. They need not be: a matrix product is cut into blocks, and a row at the ragged edge of a block
may be summed in another order. On one CPU a UNet's rows depended on their slot at 13 rows, and at 16 they did not. So
the number of rows is tried, not assumed: the same input in every slot, and different ones in different orders, must
come back with equal bits. Where the engine leaves out groups of rows that nobody waits for (see `step`), the other
groups must come back the same without them: each group alone, without each, and every second one.

What is tried is some inputs of the size of noise, not all: it finds blocks, not a bit that flips once in a million.
Where a turn is more than the network and what stands around it, whole turns are tried instead (see `rehearsal`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from generative.diffusion.engine.request import Inputs
from lab import streams

TRIALS = 3  # sets of inputs, each at other timesteps, labels and conditions
Batch = tuple[Tensor, Tensor, Tensor | None, dict[str, Tensor]]


def prove(
    network: Callable[..., Tensor], inputs: Inputs, device: torch.device, dtype: torch.dtype, group: int | None = None
) -> None:
    """Try it.

    Args:
        network: as the engine calls it.
        inputs: what it is called with, the number of rows among them.
        device: where it is.
        dtype: of x.
        group: rows that may be left out together; None where it is always called with all.

    Raises:
        ValueError: with what was found, and with the nearest smaller number of rows at which it is not so.
    """
    found = flaw(network, inputs, device, dtype, group)
    if found is not None:
        fitting = fit(network, inputs, device, dtype, group)
        advice = f"rows={fitting} holds" if fitting else "no smaller number of rows holds"
        raise ValueError(f"rows={inputs.rows}: {found}; {advice}")


def fit(
    network: Callable[..., Tensor], inputs: Inputs, device: torch.device, dtype: torch.dtype, group: int | None = None
) -> int:
    """The largest number of rows that holds, tried downward from `inputs.rows`, multiples of 8, 4, 2, 1; 0: none."""
    asked = inputs.rows
    for rows in (asked, *(n for n in range((asked - 1) // 8 * 8, 0, -8)), *(n for n in (4, 2, 1) if n < asked)):
        if flaw(network, dataclasses.replace(inputs, rows=rows), device, dtype, group) is None:
            return rows
    return 0


@torch.no_grad()
def flaw(
    network: Callable[..., Tensor], inputs: Inputs, device: torch.device, dtype: torch.dtype, group: int | None = None
) -> str | None:
    """What makes a row depend on more than its own input; None where nothing was found."""
    for trial in range(TRIALS):
        rows, batch = inputs.rows, _batch(inputs, trial, device, dtype)
        slot = torch.arange(rows, device=device)
        told = _ask(network, batch, slot)
        if not torch.equal(_ask(network, batch, slot), told):
            return "the network's answer differs from call to call"
        chosen = trial * (rows - 1) // max(TRIALS - 1, 1)
        copies = _ask(network, batch, torch.full_like(slot, chosen))
        for i in range(1, rows):
            if not torch.equal(copies[i], copies[0]):
                return f"a row depends on its slot: one input has another answer in slot {i} than in slot 0"
        if not torch.equal(copies[chosen], told[chosen]):
            return f"a row depends on its neighbours: that in slot {chosen} has another answer among copies of itself"
        for order in (slot.roll(1), slot.flip(0)):
            if not torch.equal(_ask(network, batch, order), told[order]):
                return "a row depends on its slot or its neighbours: another order has other answers"
        if group is not None and group < rows:
            for some in _without(torch.split(slot, group)):
                if not torch.equal(_ask(network, batch, some), told[some]):
                    return f"a row depends on its neighbours: other answers where only {len(some)} rows are asked"
    return None


def _without(groups: Sequence[Tensor]) -> list[Tensor]:
    """Rows that may be all that is asked for: each group, all but each, and every second group."""
    but = [torch.cat([other for other in groups if other is not one]) for one in groups]
    return [*groups, *but, torch.cat(list(groups[::2])), torch.cat(list(groups[1::2]))]


def _ask(network: Callable[..., Tensor], batch: Batch, order: Tensor) -> Tensor:
    """The answers with the rows in this order."""
    x, t, label, conditions = batch
    told = {name: condition[order] for name, condition in conditions.items()}
    return network(x[order], t[order], None if label is None else label[order], **told)


def _batch(inputs: Inputs, trial: int, device: torch.device, dtype: torch.dtype) -> Batch:
    """Rows that differ in everything: noise, timesteps below 1000, labels; conditions are the null ones and noise."""
    row = torch.arange(inputs.rows, device=device)

    def normal(name: str, shape: tuple[int, ...]) -> Tensor:
        key = torch.tensor(streams.derive(trial, "proof", name), device=device)
        size = torch.Size((inputs.rows, *shape))
        return streams.normal(key, torch.arange(size.numel(), device=device)).view(size)

    t = (row * 389 + trial * 97 + 11) % 1000
    label = None if inputs.classes is None else (row + trial) % (inputs.classes + 1)
    conditions = {}
    for name, null in inputs.null.items():
        same = null.to(device).expand(inputs.rows, *null.shape).clone()
        conditions[name] = same + normal(name, tuple(null.shape)).to(null.dtype) if null.is_floating_point() else same
    return normal("x", inputs.seen).to(dtype), t.to(dtype), label, conditions
