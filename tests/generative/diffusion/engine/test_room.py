"""Room for solver tables: however many solvers come by, it stays the same, and no image shows which came before."""

import gc
import random
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.engine.shelf import Shelf
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.solver import compile_solver
from generative.diffusion.solvers.table import TENSORS, SolverTable
from tests.generative.diffusion.engine.load import COMPILER, HALF, IMAGE, LOAD, arriving, engine

ROOM = 40
SHARES = (0.25, 0.4, 0.6, 0.75, 1.0)  # of the steps that are run


def many(count: int) -> list[Request]:
    """Requests that differ in solver, steps and strength, some with a mask, some guided; ever the same order."""
    kinds = [(s, n, share) for s in ("ddim", "ddpm", "dpmpp-2m", "heun") for n in range(4, 20) for share in SHARES]
    random.Random(0).shuffle(kinds)
    kinds = [(s, n, share) for s, n, share in kinds if s != "heun" or 2 * n < ROOM]
    assert len(kinds) >= count
    return [
        Request(i, s, n, (1.0, 2.0)[i % 2], i % 3, init=IMAGE, strength=share, mask=HALF if i % 3 == 0 else None)
        for i, (s, n, share) in enumerate(kinds[:count])
    ]


class Watching:
    """A compiler that knows which of its tables are still there."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[SolverTable]] = []

    def __call__(self, *name: Any) -> SolverTable:
        table = COMPILER(*name)
        self.made.append(weakref.ref(table))
        return table

    @property
    def rows(self) -> int:
        """Of all that are there."""
        gc.collect()
        return sum(len(table) for made in self.made if (table := made()) is not None)


def watched(monkeypatch: pytest.MonkeyPatch, **told: Any) -> tuple[Engine, Watching]:
    compiler = Watching()
    monkeypatch.setattr("tests.generative.diffusion.engine.load.COMPILER", compiler)
    return engine(room=ROOM, **told), compiler


def test_300_solvers_in_a_room_of_40_rows_draw_what_each_draws_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, solo = many(300), engine()
    expected = solo.sample(requests)
    shared, compiler = watched(monkeypatch)
    sizes = {name: (tensor.shape, tensor.data_ptr()) for name, tensor in shared.shelf.tensors().items()}
    images, most = {}, 0
    for i, request in enumerate(requests):
        shared.submit(request)
        images.update(shared.turn().finished)
        assert sum(map(len, shared.shelf.rows.values())) + len(shared.shelf.free) == ROOM
        assert shared.catalogue.used <= ROOM
        if i % 50 == 49:
            while shared.waiting or shared.running:
                images.update(shared.turn().finished)
            most = max(most, compiler.rows)
    assert len(compiler.made) > 250  # tables, for some shares of some steps are the same
    assert most <= 2 * ROOM  # of shelf and catalogue
    assert {name: (tensor.shape, tensor.data_ptr()) for name, tensor in shared.shelf.tensors().items()} == sizes
    assert torch.equal(torch.stack([images[i] for i in range(300)]), expected)
    for i in range(0, 300, 7):
        assert torch.equal(solo.sample([requests[i]])[0], expected[i]), requests[i]


def test_a_compiled_turn_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend is asked anew whenever a size or a tensor of another kind makes torch.compile compile anew."""
    from torch._dynamo.backends.registry import lookup_backend

    compilations: list[int] = []

    def counting(graph: Any, inputs: Any) -> Callable[..., Any]:
        compilations.append(len(inputs))
        return lookup_backend("aot_eager")(graph, inputs)

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counting))
    shared = engine(mode="compiled", room=ROOM)
    requests = many(30)
    assert sum(r.steps for r in requests if r.strength == 1) > 2 * ROOM
    found = arriving(shared, requests)
    assert len(compilations) == 1
    torch.testing.assert_close(found, engine().sample(requests), rtol=1e-5, atol=1e-5)


def test_a_table_that_a_ticket_points_to_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, compiler = watched(monkeypatch)
    first, others = Request(0, "ddim", 30), [Request(1, "ddpm", n) for n in range(10, 16)]
    for request in (first, *others):
        shared.submit(request)
    assert ("ddim", 30, 0, None) not in shared.catalogue.kept
    shared.submit(Request(9, "ddim", 30))
    assert len(compiler.made) == 7
    assert shared.waiting[0].table is shared.waiting[-1].table
    shared.drop()
    shared.submit(Request(1, "ddim", 30))
    assert len(compiler.made) == 7  # kept, for it was the last
    shared.submit(Request(1, "ddpm", 10))
    assert len(compiler.made) == 8


def test_who_finds_no_room_waits_for_those_who_run() -> None:
    shared = engine(room=20)
    requests = [Request(0, "ddim", 12), Request(1, "ddpm", 9), Request(2, "ddim", 12)]
    for request in requests:
        shared.submit(request)
    images = {}
    for turn in range(12):
        assert len(shared.waiting) == (3 if turn == 0 else 2)  # 12 + 9 > 20; and the third does not go before
        images.update(shared.turn().finished)
    assert images.keys() == {0}
    while shared.waiting or shared.running:
        images.update(shared.turn().finished)
    assert torch.equal(torch.stack([images[i] for i in range(3)]), engine().sample(requests))


def test_a_table_larger_than_the_room_is_refused_alone() -> None:
    shared = engine(room=10)
    good = shared.submit(LOAD[0])
    with pytest.raises(RequestError, match="request 1: steps is 11; its table has 11 rows; expected at most 10, the"):
        shared.submit(Request(1, "ddim", 11))
    table = compile_solver("ddim", cosine(), "v", 11)
    with pytest.raises(RequestError, match="request 1: solver is a table of 11 rows; expected at most 10, the room"):
        shared.submit(Request(1, table))
    assert shared.catalogue.used <= 10
    images: list[tuple[int, Tensor]] = []
    while not images:
        images = shared.turn().finished
    assert images[0][0] == good
    assert torch.equal(images[0][1], engine().sample([LOAD[0]])[0])
    with pytest.raises(ValueError, match="room=0; expected at least 1"):
        engine(room=0)


def test_a_shelf_keeps_the_rows_of_those_who_run_whatever_else_comes() -> None:
    """Walked along `next`, every table on it reads as it was compiled; those in use have stayed where they were."""
    draw = random.Random(1)
    tables = [compile_solver(s, cosine(), "v", n) for s in ("ddim", "ddpm", "dpmpp-2m") for n in range(1, 12)]
    shelf = Shelf(4, torch.device("cpu"), torch.float64, ROOM)
    held: dict[SolverTable, list[int]] = {}
    outcomes = []
    for _ in range(400):
        table = draw.choice(tables)
        first = shelf.place(table, held)
        outcomes.append(first is None)
        total = sum(map(len, {*held, table}))
        assert (first is None) == (total > ROOM)
        if first is not None and draw.random() < 0.5:
            held[table] = list(shelf.rows[table])
        if held and draw.random() < 0.5:
            del held[draw.choice(list(held))]
        standing = [row for rows in shelf.rows.values() for row in rows]
        assert sorted([*standing, *shelf.free]) == list(range(1, ROOM + 1))
        for kept, rows in held.items():
            assert shelf.rows[kept] == rows
    assert any(outcomes)
    for table, rows in shelf.rows.items():
        walked = [rows[0]]
        while shelf.next[walked[-1]] != 0:
            walked.append(int(shelf.next[walked[-1]]))
        index = torch.tensor(walked)
        for name in TENSORS:
            assert torch.equal(getattr(shelf.tables, name)[index], getattr(table.padded(4), name)), name
        assert torch.equal(shelf.after[:, index], torch.stack(table.after))
    assert shelf.next[0] == 0
