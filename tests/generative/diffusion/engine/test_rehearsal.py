"""Turns that are right but for one thing, which only some requests bring: the rehearsal finds each of them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from generative.diffusion.engine import rehearsal
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.engine.slots import Slots
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import ClosedForms
from tests.generative.diffusion.engine.load import LOAD, SHAPE, engine

Spoil = Callable[[Slots, bool, bool], None]
"""What a turn does to the slots beside what it should; it is told whether anyone draws, and whether anyone keeps."""


class Twofold(nn.Module):
    """Sees its last estimate, and says a variance; pixel by pixel, so that its rows are alone whatever the machine."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
        sample, estimate = x.chunk(2, dim=1)
        told = (0.005 * t + 0.4 * label + context.sum(1)).view(-1, 1, 1, 1)
        return torch.cat([torch.sin(sample + estimate + told), (sample - estimate).tanh()], dim=1)


class Crowded(Twofold):
    """Its word on the variance depends on its neighbours."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
        said, v = super().forward(x, t, label, context).chunk(2, dim=1)
        return torch.cat([said, v + 1e-5 * v.mean(0)], dim=1)


def mix(part: Tensor, rows: Tensor | None = None) -> None:
    """A little of all rows to each, or to these."""
    rows = torch.ones(len(part), dtype=torch.bool) if rows is None else rows
    part[rows] += 1e-5 * part.mean(0)


def guided(s: Slots) -> Tensor:
    return s.null != torch.arange(len(s.null))


def last(s: Slots, draws: bool, keeps: bool) -> None:
    if draws and keeps:
        s.h[-1] *= 1 + 1e-5


SPOILS: dict[str, Spoil] = {
    "noise": lambda s, draws, keeps: mix(s.h) if draws else None,
    "no noise": lambda s, draws, keeps: None if draws else mix(s.h),
    "a mask": lambda s, draws, keeps: mix(s.h) if keeps else None,
    "no mask": lambda s, draws, keeps: None if keeps else mix(s.h),
    "a mask without noise": lambda s, draws, keeps: mix(s.h) if keeps and not draws else None,
    "a mask and noise": lambda s, draws, keeps: mix(s.h) if keeps and draws else None,
    "the last slot, with a mask and noise": last,
    "guidance": lambda s, draws, keeps: mix(s.h, guided(s)),
    "guidance with noise": lambda s, draws, keeps: mix(s.h, guided(s)) if draws else None,
    "no guidance": lambda s, draws, keeps: mix(s.h, ~guided(s)),
    "rows of a mask": lambda s, draws, keeps: mix(s.h, (s.kept["mask"] != 1).any(1)) if s.kept else None,
    "rows with their own noise": lambda s, draws, keeps: mix(s.h, s.brings),
    "what a solver remembers": lambda s, draws, keeps: mix(s.h[:, 1]),
    "what it remembers last": lambda s, draws, keeps: mix(s.h[:, -1]),
    "the estimate": lambda s, draws, keeps: mix(s.estimate) if s.estimate is not None else None,
    "labels": lambda s, draws, keeps: mix(s.h, s.label == 1),
}


def spoilt(made: Engine, spoil: Spoil) -> Engine:
    move = made.move

    def turn(draws: bool, keeps: bool) -> None:
        move(draws, keeps)
        spoil(made.slots, draws, keeps)

    made.move = turn
    return made


def full(network: nn.Module | None = None, rows: int = 8) -> Engine:
    return engine(network or Twofold(), rows=rows, variance=True, self_conditioned=True)


@pytest.mark.parametrize("name", SPOILS)
def test_rows_that_mix_where_one_thing_is_asked_for_are_found(name: str) -> None:
    with pytest.raises(ValueError, match=r"rows=8: a row depends on its (slot|neighbours)"):
        rehearsal.prove(spoilt(full(), SPOILS[name]))


def test_what_a_learned_variance_adds_is_tried() -> None:
    with pytest.raises(ValueError, match="a row depends on its neighbours: a request with noise has another answer am"):
        rehearsal.prove(full(Crowded()))


def test_chance_is_found() -> None:
    calls = iter(range(10_000))
    with pytest.raises(ValueError, match="a sample differs from run to run"):
        rehearsal.prove(spoilt(full(), lambda s, draws, keeps: s.h.add_(1e-5 * next(calls))))


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 13])
def test_an_engine_without_a_flaw_passes_and_is_as_it_was(rows: int) -> None:
    """Whatever its rows: with one there is no guidance; and with some a pair is left out at first."""
    load = [request for request in LOAD if request.rows <= rows]
    tried, fresh = full(rows=rows), full(rows=rows)
    rehearsal.prove(tried)
    assert tried.slots.free == list(range(rows))
    assert not tried.running
    assert not tried.waiting
    assert tried.count == 0
    assert torch.equal(tried.sample(load), fresh.sample(load))


@pytest.mark.parametrize("room", [1, 2, 5])
def test_little_room_is_enough(room: int) -> None:
    """For a rehearsal of one table at a time; and a network that is told nothing has none to guide."""
    plain = Engine(lambda x, t, label: torch.sin(x), SHAPE, ClosedForms(cosine(), "v"), rows=4, room=room)
    rehearsal.prove(plain)
    with pytest.raises(ValueError, match="rows=4: a row depends on its neighbours"):
        rehearsal.prove(spoilt(plain, SPOILS["noise"]))
    plain.drop()
    assert plain.slots.free == list(range(4))
    assert plain.submit(Request(0, "ddim", room)) == 0
