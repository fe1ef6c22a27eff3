"""Whole turns, tried as `proof` tries a network: compiled or captured, a turn's arithmetic is no longer ours.

The engine serves a cast of requests of every kind that it can have: guided pairs among unguided, noise of the seed's
and of their own, masks, conditions; all with solvers that remember, whose numbers are drawn, so that no product of a
step is with 0; the noise of a learned variance and the last estimate where the network has them. It serves each of the
four variants of a turn (whether anyone draws noise, whether anyone keeps a part of an image) in the same company again,
in other slots, in the company of copies, and alone. A request's sample must come out in the same bits.

What is tried is some requests, not all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from generative.diffusion.engine.learned import NAME
from generative.diffusion.engine.request import Request
from generative.diffusion.engine.ticket import Ticket
from generative.diffusion.solvers.table import SolverTable
from lab import streams

if TYPE_CHECKING:
    from generative.diffusion.engine.engine import Engine

STEPS = 2  # by the second a solver remembers the first, and the network has said an estimate


@dataclass(frozen=True)
class Kind:
    """What a request of the cast brings."""

    name: str
    guided: bool = False
    draws: bool = False
    own: bool = False
    """Noise of its own instead of the seed's."""
    keeps: bool = False


PLAIN = Kind("plain")
KINDS = (
    PLAIN,
    Kind("guided", guided=True),
    Kind("with noise", draws=True),
    Kind("guided with noise", guided=True, draws=True),
    Kind("with its own noise", draws=True, own=True),
    Kind("with a mask", keeps=True),
    Kind("guided with a mask", guided=True, keeps=True),
    Kind("guided with noise and a mask", guided=True, draws=True, keeps=True),
)


def prove(engine: Engine) -> None:
    """Try it. The engine must be idle, and is again afterwards.

    Raises:
        ValueError: with what was found.
    """
    try:
        found = flaw(engine)
    finally:
        engine.drop()
    if found is not None:
        raise ValueError(f"rows={engine.inputs.rows}: {found}; expected another number of rows, or mode='eager'")


def flaw(engine: Engine) -> str | None:
    """What makes a sample depend on more than its own request; None where nothing was found."""
    rows = engine.inputs.rows
    told = engine.inputs.classes is not None or bool(engine.inputs.null)  # else there is nothing to guide towards
    kinds = [kind for kind in KINDS if not kind.guided or (told and rows > 1)]
    tables = {kind: _table(kind, min(STEPS, engine.shelf.room), 1 + engine.shelf.registers) for kind in kinds}
    for draws, keeps in ((False, False), (True, False), (False, True), (True, True)):
        having = [kind for kind in kinds if kind.draws <= draws and kind.keeps <= keeps]
        cast: list[tuple[Kind, Ticket]] = []
        while len(cast) < len(having) or sum(ticket.request.rows for _, ticket in cast) < rows:
            kind = having[len(cast) % len(having)]
            cast.append((kind, _ticket(engine, kind, tables[kind], len(cast))))
        alone = [kind is PLAIN or (kind.draws == draws and kind.keeps == keeps) for kind in having]
        found = _flaw(engine, cast, [i for i, each in enumerate(alone) if each])
        if found is not None:
            return found
    return None


def _flaw(engine: Engine, cast: Sequence[tuple[Kind, Ticket]], alone: Sequence[int]) -> str | None:
    """Of this cast; those at the places in `alone` are also tried among copies of themselves and alone."""
    names, everyone = [kind.name for kind, _ in cast], [ticket for _, ticket in cast]
    slots = list(range(engine.inputs.rows))
    samples = _serve(engine, everyone, slots)
    if _differing(_serve(engine, everyone, slots), samples):
        return "a sample differs from run to run"
    for i in alone:
        size, odd = everyone[i].request.rows, f"a request {names[i]} has another answer"
        copies = _serve(engine, [everyone[i]] * (len(slots) // size), slots)
        for k in _differing(copies, copies[:1] * len(copies)):
            return f"a row depends on its slot: {odd} in slot {k * size} than in slot 0"
        if _differing(copies[:1], samples[i : i + 1]):
            return f"a row depends on its neighbours: {odd} among copies of itself"
        if _differing(_serve(engine, [everyone[i]], slots[::-1]), samples[i : i + 1]):
            return f"a row depends on its neighbours: {odd} alone"
    for order in (slots[::-1], slots[::2] + slots[1::2]):  # also so that the two rows of a guided one lie apart
        for i in _differing(_serve(engine, everyone, order), samples):
            return f"a row depends on its slot or its neighbours: a request {names[i]}, in another order"
    return None


def _serve(engine: Engine, tickets: Sequence[Ticket], order: Sequence[int]) -> list[Tensor]:
    """Their samples, when they take their slots in this order."""
    engine.drop()
    engine.slots.free = list(order)
    samples: dict[int, Tensor] = {}
    for ticket in tickets:
        engine.enqueue(replace(ticket))
    while len(samples) < len(tickets):
        samples.update(engine.turn().done)
    return [samples[number] for number in range(len(tickets))]


def _differing(some: Sequence[Tensor], others: Sequence[Tensor]) -> list[int]:
    """Where they are not equal in every bit; what is not a number is equal to itself."""
    pairs = zip(some, others, strict=True)
    return [i for i, (a, b) in enumerate(pairs) if not bool(((a == b) | (a.isnan() & b.isnan())).all())]


def _table(kind: Kind, steps: int, width: int) -> SolverTable:
    """Steps of a solver with drawn numbers, of the size that leaves samples as large as they are."""
    drawn = count()

    def number(*shape: int) -> Tensor:
        return 0.5 * _normal(f"{kind.name} {next(drawn)}", (steps, *shape)).double()

    level = torch.arange(steps, 0, -1).double() / (steps + 1)
    return SolverTable(
        timesteps=(500 + 300 * number()).clamp(0, 999),
        input_scale=1 + 0.1 * number(),
        x0_from_x=number(),
        x0_from_output=1 + 0.1 * number(),
        A=number(width, width),
        B=number(width),
        C=number(width) * kind.draws,
        D=number(width),
        alpha=(1 - level**2).sqrt(),
        sigma=level,
        clip=1.5,
    )


def _ticket(engine: Engine, kind: Kind, table: SolverTable, i: int) -> Ticket:
    """A request of this kind, the i-th of its cast; each has other numbers."""
    inputs, shape = engine.inputs, engine.inputs.shape
    brings: dict[str, Any] = {}
    if inputs.classes is not None:
        brings["label"] = i % inputs.classes
    for field in ("condition", "against") if kind.guided else ("condition",):
        if inputs.null:
            brings[field] = {name: _near(null.cpu(), f"{field} {name} {i}") for name, null in inputs.null.items()}
    if kind.keeps:
        brings["init"] = _normal(f"init {i}", shape)
        brings["mask"] = _normal(f"mask {i}", shape).clamp(0, 1)
    if kind.own:
        brings["noise"] = _normal(f"noise {i}", (1 + len(table), *shape))
    request = Request(i, table, guidance=2.0 + 0.3 * i if kind.guided else 1.0, clip=1 + 0.1 * i, **brings)
    ticket = engine.prepare(request)
    return replace(ticket, request=replace(request, solver=NAME)) if kind.draws else ticket  # its variance is learned


def _near(null: Tensor, name: str) -> Tensor:
    """The null condition and noise, or itself where it is no floating type."""
    return null + _normal(name, tuple(null.shape)).to(null.dtype) if null.is_floating_point() else null


def _normal(name: str, shape: tuple[int, ...]) -> Tensor:
    size = torch.Size(shape)
    key = torch.tensor(streams.derive(0, "rehearsal", name))
    return streams.normal(key, torch.arange(size.numel())).view(size)
