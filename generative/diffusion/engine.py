"""The denoising loop: a fixed number of network rows, filled with whatever is asked for.

Every request stands at its own row of the solver tables (see `table`), with its own seed, guidance, label and clip;
requests join when rows fall free and leave when they are done, at any step. One turn of the loop is one call of the
network and a few gathers; nothing in it asks which solver a request uses, and nothing waits for the device.

    for tick in engine.steps(requests):     # the loop is at rest at every yield: look, draw, stop
        for index, sample in tick.finished: ...

A guided request takes two rows. The first holds its state; the second shows that state to the network under the null
label. output = null + g (told - null) (Ho & Salimans 2022, eq. 6, with g = 1 + w).

The noise of a request at its k-th step is a function of its seed, k and the pixel alone. All arithmetic outside the
network is elementwise, so a sample does not depend on its company wherever the network's rows do not.

Key: R network rows (slots), P pixels of a sample, H registers of the solvers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from generative.diffusion.denoiser import Network, Prediction
from generative.diffusion.request import Request, RequestError, check
from generative.diffusion.schedule import NoiseSchedule
from generative.diffusion.solver import SolverError, compile_solver
from generative.diffusion.table import SolverTable, concatenate, idle, step
from lab import streams

REGISTERS = 4
"""H of every engine: the tensors a solver may remember beside the sample. Each costs a product a pixel and step."""


@dataclass(frozen=True)
class Tick:
    """What one call of the network has brought."""

    finished: list[tuple[int, Tensor]]
    """(number of the request, sample [*shape]) of those that are done."""
    running: list[int]
    """The numbers of those that are on their way."""


@dataclass
class Ticket:
    """A request on its way: what the host knows of it, so that nothing has to be asked of the device."""

    number: int
    request: Request
    table: SolverTable
    left: int
    noisy: bool
    slots: tuple[int, ...] = ()


class Engine:
    """Draws samples for many requests at once.

    Args:
        network: answers (x [R, *shape], t [R], label [R] or None) with [R, *shape].
        schedule: the noise the network was trained with.
        prediction: what it was trained to say.
        shape: of one sample.
        rows: network rows a call, idle ones included: the one thing besides the request that the last bits of a sample
            may depend on. More rows are faster in all and slower for one.
        classes: the number of labels; the label `classes` is the null label. None: the network is told no label.
        device: where the network is.
        dtype: floating type of the state and of the network's input.

    Raises:
        ValueError: when there is no row.
    """

    def __init__(
        self,
        network: Network,
        schedule: NoiseSchedule,
        prediction: Prediction,
        shape: tuple[int, ...],
        *,
        rows: int = 64,
        classes: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if rows < 1:
            raise ValueError(f"the engine has rows={rows}; it needs at least 1, and 2 for guided requests")
        self.network, self.schedule, self.prediction, self.shape = network, schedule, prediction, shape
        self.rows, self.classes, self.device, self.dtype = rows, classes, torch.device(device), dtype
        self.pixel = torch.arange(torch.Size(shape).numel(), device=self.device)  # [P]
        self.compiled: dict[tuple[str, int], SolverTable] = {}
        self.first_row: dict[SolverTable, int] = {}  # where each table begins in `tables`
        self.tables = idle(REGISTERS).to(self.device, dtype)  # row 0 leaves everything as it is
        self.count = 0
        self.free = list(range(rows))
        self.waiting: deque[Ticket] = deque()
        self.running: list[Ticket] = []
        slot = torch.arange(rows, device=self.device)
        self.h = torch.zeros(rows, 1 + REGISTERS, len(self.pixel), device=self.device, dtype=dtype)
        self.pointer = torch.zeros_like(slot)  # [R] row of `tables` that a slot stands at
        self.advance = torch.zeros_like(slot)  # [R] 1 where a request runs, else 0
        self.source = slot.clone()  # [R] the slot whose sample and timestep this slot shows to the network
        self.null = slot.clone()  # [R] the slot with the answer under the null label; itself where unguided
        self.label = torch.full_like(slot, classes or 0)  # [R]
        self.key = torch.zeros_like(slot)  # [R] stream of the request's noise
        self.drawn = torch.zeros_like(slot)  # [R] draws since the first sample, which was draw 0
        self.guidance = torch.ones(rows, device=self.device, dtype=dtype)
        self.clip = torch.full_like(self.guidance, torch.inf)

    def sample(
        self, requests: Iterable[Request], progress: Callable[[int], None] | None = None
    ) -> Float[Tensor, "N *shape"]:
        """All samples, in the order of the requests; `progress` hears how many were just finished."""
        samples: dict[int, Tensor] = {}
        for tick in self.steps(requests):
            samples.update(tick.finished)
            if progress is not None and tick.finished:
                progress(len(tick.finished))
        if not samples:
            return torch.empty(0, *self.shape, device=self.device, dtype=self.dtype)
        return torch.stack([samples[i] for i in range(len(samples))])

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Float[Tensor, "*shape"]]]:
        """(index, sample) of each request as soon as it is done."""
        for tick in self.steps(requests):
            yield from tick.finished

    def steps(self, requests: Iterable[Request]) -> Iterator[Tick]:
        """Serve these requests alone, numbered from 0, with one `Tick` for each call of the network.

        Raises:
            RequestError: before any work, when a request cannot be served.
        """
        self.drop()
        for request in requests:
            self.submit(request)
        try:
            while self.waiting or self.running:
                yield self.turn()
        finally:
            self.drop()

    def submit(self, request: Request) -> int:
        """Queue a request, also while others run, and return its number. Raises RequestError when it cannot be met."""
        try:
            check(request, self.rows, self.classes)
            table = self._table(request)
        except (RequestError, SolverError) as error:
            raise RequestError(f"request {self.count}: {error}") from None
        self.waiting.append(Ticket(self.count, request, table, left=len(table), noisy=table.stochastic))
        self.count += 1
        return self.count - 1

    def turn(self) -> Tick:
        """Let in who waits, call the network once, let out who is done."""
        self._admit()
        self._denoise()
        for ticket in self.running:
            ticket.left -= 1
        done = [ticket for ticket in self.running if ticket.left == 0]
        self.running = [ticket for ticket in self.running if ticket.left > 0]
        finished = [(t.number, self.h[t.slots[0], 0].view(self.shape).clone()) for t in done]
        self._release(done)
        return Tick(finished, [ticket.number for ticket in self.running])

    def drop(self) -> None:
        """Forget all requests and number from 0 again."""
        self._release(self.running)
        self.running, self.count = [], 0
        self.waiting.clear()

    def peek(self, number: int) -> Float[Tensor, "*shape"]:
        """The present noisy sample of a running request. Raises KeyError when it does not run."""
        for ticket in self.running:
            if ticket.number == number:
                return self.h[ticket.slots[0], 0].view(self.shape).clone()
        raise KeyError(number)

    def start(self, request: Request) -> Float[Tensor, "*shape"]:
        """The noise that a request begins with."""
        key = self._index([streams.derive(request.seed, "sample")])
        return (self._table(request).initial_scale * self._noise(key, torch.zeros_like(key))).view(self.shape)

    @torch.no_grad()
    def _denoise(self) -> None:
        """One call of the network and one step of every row."""
        shown = self.pointer[self.source]  # [R]
        x = self.h[self.source, 0] * self.tables.input_scale[shown, None]  # [R, P]
        label = None if self.classes is None else self.label
        answer = self.network(x.view(self.rows, *self.shape), self.tables.timesteps[shown], label)
        told = answer.reshape(self.rows, -1).to(self.dtype)  # [R, P]
        null = told[self.null]
        output = null + self.guidance[:, None] * (told - null)  # the answer itself where unguided: null is told
        self.drawn = self.drawn + 1
        z = self._noise(self.key, self.drawn) if any(ticket.noisy for ticket in self.running) else None
        self.h = step(self.tables.rows(self.pointer), self.h, output, z, self.clip)
        self.pointer = self.pointer + self.advance

    def _noise(self, key: Int64[Tensor, "R"], draw: Int64[Tensor, "R"]) -> Float[Tensor, "R P"]:
        return streams.normal(key[:, None], draw[:, None] * len(self.pixel) + self.pixel).to(self.dtype)

    def _admit(self) -> None:
        """Seat the waiting, first come, first served, while there are rows for the first of them."""
        joined = []
        while self.waiting and self.waiting[0].request.rows <= len(self.free):
            ticket = self.waiting.popleft()
            ticket.slots = tuple(self.free.pop(0) for _ in range(ticket.request.rows))
            joined.append(ticket)
        if not joined:
            return
        self.running += joined
        slots = self._index([t.slots[0] for t in joined])
        scale = self._number([t.table.initial_scale for t in joined])
        self.key[slots] = self._index([streams.derive(t.request.seed, "sample") for t in joined])
        self.h[slots, 0] = scale[:, None] * self._noise(self.key[slots], torch.zeros_like(slots))
        self.pointer[slots] = self._index([self.first_row[t.table] for t in joined])
        self.advance[slots] = 1
        self.drawn[slots] = 0
        labels = [t.request.label for t in joined]
        self.label[slots] = self._index([(self.classes or 0) if label is None else label for label in labels])
        self.guidance[slots] = self._number([t.request.guidance for t in joined])
        self.clip[slots] = self._number([torch.inf if t.request.clip is None else t.request.clip for t in joined])
        pairs = [t.slots for t in joined if len(t.slots) == 2]
        if pairs:
            told, null = self._index(pairs).unbind(1)
            self.null[told], self.source[null] = null, told  # the label of a free slot is the null label already

    def _release(self, tickets: list[Ticket]) -> None:
        """Make the slots of `tickets` idle and free."""
        slots = self._index([slot for ticket in tickets for slot in ticket.slots])
        self.h[slots] = 0
        self.pointer[slots] = 0
        self.advance[slots] = 0
        self.source[slots] = slots
        self.null[slots] = slots
        self.label[slots] = self.classes or 0
        self.guidance[slots] = 1
        self.clip[slots] = torch.inf
        self.free = sorted([*self.free, *(slot for ticket in tickets for slot in ticket.slots)])

    def _table(self, request: Request) -> SolverTable:
        """The request's table, compiled once, with its rows among the engine's."""
        table = request.solver
        if isinstance(table, str):
            name = (table, request.steps)
            if name not in self.compiled:
                self.compiled[name] = compile_solver(table, self.schedule, self.prediction, request.steps)
            table = self.compiled[name]
        if table not in self.first_row:
            if table.registers > REGISTERS:
                raise RequestError(f"its solver remembers {table.registers} tensors; the engine has {REGISTERS}")
            self.first_row[table] = len(self.tables)
            self.tables = concatenate([self.tables, table.padded(REGISTERS).to(self.device, self.dtype)])
        return table

    def _index(self, values: Sequence[int] | Sequence[tuple[int, ...]]) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=torch.int64)

    def _number(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=self.dtype)
