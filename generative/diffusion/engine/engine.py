"""The denoising loop: a fixed number of network rows, filled with whatever is asked for.

Every request stands at its own row of the solver tables (see `table`), with its own seed, guidance, label, conditions,
clip, image and mask; requests join when rows fall free and leave when they are done, at any step. One turn of the loop
is one call of the network and a few gathers; nothing in it asks which solver a request uses, and nothing waits for the
device.

    for tick in engine.steps(requests):     # the loop is at rest at every yield: look, draw, stop
        for index, sample in tick.finished: ...

Guided: output = null + g (told - null) (Ho & Salimans 2022, eq. 6, with g = 1 + w).

Inpainting: after every step x <- mask x + (1 - mask) (alpha' init + sigma' noise0), at the level the sample then stands
at and with the noise of the start, as diffusers' pipelines do where the network has no channels for a mask. What the
solver remembers is left as it is; with masks of 0 and 1 no painted pixel ever sees the difference.

The arithmetic is that of `step`; in which of three ways it is run is said in `modes`.

The noise of a request at its k-th step is a function of its seed, k and the pixel alone. All arithmetic outside the
network is elementwise, so a sample does not depend on its company wherever the network's rows do not (see `proof`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from generative.diffusion.engine import proof, rehearsal
from generative.diffusion.engine.catalogue import Catalogue
from generative.diffusion.engine.check import check, check_table, check_weights
from generative.diffusion.engine.modes import MODES
from generative.diffusion.engine.request import Inputs, Request, RequestError
from generative.diffusion.engine.shelf import ROOM, Shelf
from generative.diffusion.engine.slots import Slots
from generative.diffusion.engine.step import Step, together
from generative.diffusion.engine.ticket import Tick, Ticket
from generative.diffusion.solvers.table import Compiler
from lab import streams

REGISTERS = 4
"""H of every engine: the tensors a solver may remember beside the sample. Each costs a product a pixel and step."""


class Engine:
    """Draws samples for many requests at once.

    Args:
        network: answers (x [R, *shape], t [R], label int64 [R] or None, **conditions each [R, ...]) with [R, *shape]
            (for more channels see `variance` and `self_conditioned`).
        shape: of one sample.
        compiler: makes the tables of the solvers that requests name (see `compiler` and `schedulers`).
        rows: network rows a call, idle ones included: the one thing besides the request that the last bits of a sample
            may depend on. More rows are faster in all and slower for one.
        classes: the number of labels; the label `classes` is the null label. None: the network is told no label.
        null: the conditions of a request that asks for nothing, by the names the network knows them by.
        device: where the network is.
        dtype: floating type of the state and of the timesteps the network is told.
        network_dtype: floating type of all else that the network is shown, and of its weights: whoever asks for another
            than `dtype` moves the network there. In bfloat16 weights and activations take half the memory, and an
            answer holds 2 to 3 digits; the sample itself is kept in `dtype`.
        variance: whether the network answers with [R, 2C, ...], the second half saying the variance of DDPM's noise. It
            is read for requests that ask for "ddpm" by that name (see `learned`).
        self_conditioned: whether x is [R, 2C, ...], the second half the estimate of the step before, as it was clipped;
            zeros at the first (see `training.self_conditioning`). Both rows of a guided request are shown the estimate
            that followed from the guided answer.
        mode: "eager"; or "compiled" or "graph", which answer sooner from the second turn on (see `modes`).
        prove: whether to try first that rows and slots do not depend on each other here: those of the network (see
            `proof`), and in the other modes those of whole turns (see `rehearsal`).
        room: rows of solver tables, one for each call of the network that a solver asks for, that may be in use at a
            time. Requests whose tables do not fit beside those of the running wait for them. A row takes 200 bytes, and
            more room means that fewer tables are sent to the device again.

    Raises:
        ValueError: when there is no row or no room, no such mode or none such on this device, the network's weights are
            of another type than was said, or, with `prove`, a sample would depend on its company or slot.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        shape: tuple[int, ...],
        compiler: Compiler,
        *,
        rows: int,
        classes: int | None = None,
        null: Mapping[str, Tensor] | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        network_dtype: torch.dtype | None = None,
        variance: bool = False,
        self_conditioned: bool = False,
        mode: str = "eager",
        prove: bool = False,
        room: int = ROOM,
    ) -> None:
        if rows < 1 or room < 1:
            raise ValueError(f"rows={rows}, room={room}; expected at least 1")
        if mode not in MODES:
            raise ValueError(f"mode={mode!r}; expected one of {', '.join(MODES)}")
        if mode != "eager" and together(network):
            raise ValueError(f"mode={mode!r} and a network that takes rows by chunks; expected mode='eager'")
        if network_dtype is not None:
            check_weights(network, network_dtype)
        self.network = network
        self.inputs = Inputs(tuple(shape), rows, classes, null or {}, variance, self_conditioned)
        self.device, self.dtype = torch.device(device), dtype
        self.slots = Slots(self.inputs, REGISTERS, self.device, dtype)
        self.shelf = Shelf(REGISTERS, self.device, dtype, room)
        self.core = Step(network, self.slots, self.shelf, network_dtype or dtype)
        self.move = MODES[mode](self.core)
        self.catalogue = Catalogue(compiler, room, variance)
        self.waiting: deque[Ticket] = deque()
        self.running: list[Ticket] = []
        self.count = 0
        if prove and mode == "eager":
            proof.prove(self.core.ask, self.inputs, self.device, dtype, together(network))
        elif prove:
            rehearsal.prove(self)

    def sample(
        self, requests: Iterable[Request], progress: Callable[[int], None] | None = None
    ) -> Float[Tensor, "N *shape"]:
        """All samples, in the order of the requests; `progress` hears how many were just finished.

        Raises:
            RequestError: before any work, when a request cannot be served; later, when a sample is not finite.
        """
        samples: dict[int, Tensor] = {}
        for tick in self.steps(requests):
            if tick.failed:
                raise tick.failed[0][1]
            samples.update(tick.finished)
            if progress is not None and tick.finished:
                progress(len(tick.finished))
        if not samples:
            return torch.empty(0, *self.inputs.shape, device=self.device, dtype=self.dtype)
        return torch.stack([samples[i] for i in range(len(samples))])

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Float[Tensor, "*shape"]]]:
        """(index, sample) of each request as soon as it is done; RequestError at the end if one is not finite."""
        failed: list[tuple[int, RequestError]] = []
        for tick in self.steps(requests):
            yield from tick.finished
            failed += tick.failed
        if failed:
            raise failed[0][1]

    def steps(self, requests: Iterable[Request]) -> Iterator[Tick]:
        """Serve these requests alone, numbered from 0, with one `Tick` for each call of the network.

        Raises:
            RequestError: before any work, when a request cannot be served.
        """
        self.drop()
        try:
            for request in requests:
                self.submit(request)
            while self.waiting or self.running:
                yield self.turn()
        finally:
            self.drop()

    def submit(self, request: Request) -> int:
        """Queue a request, also while others run, and return its number. Raises RequestError when it cannot be met."""
        try:
            return self.enqueue(self.prepare(request))
        except RequestError as error:
            raise RequestError(f"request {self.count}: {error}") from None

    def prepare(self, request: Request) -> Ticket:
        """Check a request and compile its solver; nothing of the loop is touched. Raises RequestError."""
        check(request, self.inputs)
        table = self.catalogue.table(request)
        check_table(request, table, self.inputs, REGISTERS, self.shelf.room)
        flat: dict[str, Tensor] = {}
        if request.init is not None:
            flat["init"] = request.init.flatten()
        if request.mask is not None:
            flat["mask"] = request.mask.broadcast_to(self.inputs.shape).flatten()
        if request.noise is not None:
            flat["noise"] = request.noise.flatten(1)
        given = {name: tensor.detach().to(self.device, self.dtype, copy=True) for name, tensor in flat.items()}
        levels = (table.alpha[0].item(), table.sigma[0].item())
        key = streams.derive(request.seed, "sample")
        told, against = (
            {name: tensor.detach().to(self.device, copy=True) for name, tensor in (conditions or {}).items()}
            for conditions in (request.condition, request.against)
        )
        return Ticket(request, table, key, levels, table.stochastic, given, told, against, left=len(table))

    def enqueue(self, ticket: Ticket) -> int:
        """Queue what was prepared, and return its number."""
        ticket.number, self.count = self.count, self.count + 1
        self.waiting.append(ticket)
        return ticket.number

    def turn(self) -> Tick:
        """Let in who waits, call the network once, let out who is done."""
        self._admit()
        for ticket in self.running:
            self.slots.bring(ticket)
        self.move(any(ticket.noisy for ticket in self.running), any("mask" in ticket.given for ticket in self.running))
        for ticket in self.running:
            ticket.left -= 1
        done = [ticket for ticket in self.running if ticket.left == 0]
        self.running = [ticket for ticket in self.running if ticket.left > 0]
        samples = [(ticket.number, self.slots.sample(ticket.slots[0])) for ticket in done]
        self._release(done)
        sound = [sample.isfinite().all() for _, sample in samples]
        return Tick([ticket.number for ticket in self.running], samples, sound)

    def cancel(self, number: int) -> bool:
        """Forget a request that waits or runs; False when it does neither."""
        for ticket in self.waiting:
            if ticket.number == number:
                self.waiting.remove(ticket)
                return True
        gone = [ticket for ticket in self.running if ticket.number == number]
        self.running = [ticket for ticket in self.running if ticket.number != number]
        self._release(gone)
        return bool(gone)

    def drop(self) -> None:
        """Forget all requests and number from 0 again."""
        self._release(self.running)
        self.running, self.count = [], 0
        self.waiting.clear()

    def peek(self, number: int) -> Float[Tensor, "*shape"]:
        """The present noisy sample of a running request. Raises KeyError when it does not run."""
        for ticket in self.running:
            if ticket.number == number:
                return self.slots.sample(ticket.slots[0])
        raise KeyError(number)

    def start(self, request: Request) -> Float[Tensor, "*shape"]:
        """The sample that a request begins with. Raises RequestError when it cannot be met."""
        return self.slots.start([self.prepare(request)])[0].view(self.inputs.shape)

    def _admit(self) -> None:
        """Seat the waiting, first come, first served, while there are slots and room on the shelf for the first."""
        joined: list[Ticket] = []
        first_rows: list[int] = []
        free, held = len(self.slots.free), {ticket.table for ticket in self.running}
        while self.waiting and self.waiting[0].request.rows <= free:
            first = self.shelf.place(self.waiting[0].table, held)
            if first is None:
                break
            joined.append(self.waiting.popleft())
            first_rows.append(first)
            held.add(joined[-1].table)
            free -= joined[-1].request.rows
        if joined:
            self.running += joined
            self.slots.seat(joined, first_rows)

    def _release(self, tickets: list[Ticket]) -> None:
        if tickets:
            self.slots.release([slot for ticket in tickets for slot in ticket.slots])
