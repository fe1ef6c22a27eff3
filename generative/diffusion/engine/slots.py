"""The tensors of the engine's rows: who sits where, and what their network rows are shown.

A guided request takes two slots. The first holds its state; the second shows that state to the network under the null
label and what the request is led away from: the null conditions, or its own. What only a few requests bring (an image,
a mask) is allotted when the first brings it. No tensor is replaced by another: what a step reads and writes stays
where it is.

Key: R network rows (slots), P pixels of a sample, H registers of the solvers; index tensors are int64 [R].
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from generative.diffusion.engine import learned
from generative.diffusion.engine.request import Inputs
from generative.diffusion.engine.ticket import Ticket
from lab import streams

GROUPS = ("conditions", "kept")  # the attributes that are dictionaries of tensors


def sent(host: Tensor, device: torch.device) -> Tensor:
    """On the device; from pinned memory, or to copy would be to wait until all that was asked of it is done."""
    pinned = device.type == "cuda"
    return (host.pin_memory() if pinned else host).to(device, non_blocking=pinned)


class Slots:
    """R rows, all idle at first.

    Args:
        inputs: what the network is called with.
        registers: tensors a solver may remember beside the sample.
        device: where the network is.
        dtype: floating type of the state.
    """

    def __init__(self, inputs: Inputs, registers: int, device: torch.device, dtype: torch.dtype) -> None:
        rows, self.inputs, self.device, self.dtype = inputs.rows, inputs, device, dtype
        self.nothing = inputs.classes or 0  # the null label
        self.free = list(range(rows))
        self.pixel = torch.arange(math.prod(inputs.shape), device=device)  # [P]
        slot = torch.arange(rows, device=device)  # [R]
        self.h = torch.zeros(rows, 1 + registers, len(self.pixel), device=device, dtype=dtype)
        self.pointer = torch.zeros_like(slot)  # row of the tables that a slot stands at
        self.source = slot.clone()  # the slot whose sample and timestep this slot shows to the network
        self.null = slot.clone()  # the slot with the answer under the null label; itself where unguided
        self.label = torch.full_like(slot, self.nothing)
        self.key = torch.zeros_like(slot)  # stream of the request's noise
        self.drawn = torch.zeros_like(slot)  # draws since the first sample, which was draw 0
        self.learned = torch.zeros(rows, device=device, dtype=dtype)  # 1 where the network says the noise's variance
        self.z = torch.zeros(rows, len(self.pixel), device=device, dtype=dtype)  # noise of the step at hand
        self.brings = torch.zeros_like(slot, dtype=torch.bool)  # whether a request brings its own
        self.guidance = torch.ones(rows, device=device, dtype=dtype)
        self.clip = torch.full_like(self.guidance, torch.inf)
        self.nulls = {name: null.to(device) for name, null in inputs.null.items()}
        self.conditions = {name: null.expand(rows, *null.shape).clone() for name, null in self.nulls.items()}
        self.estimate = torch.zeros_like(self.z) if inputs.estimate else None  # of x_0, by the last step of each slot
        self.kept: dict[str, Tensor] = {}  # "init", "mask", "noise" [R, P] of those who keep a part of an image

    def seat(self, tickets: Sequence[Ticket], first_rows: Sequence[int]) -> None:
        """Give the tickets their slots and state; `first_rows` are where their tables begin. They must fit."""
        for ticket in tickets:
            ticket.slots = tuple(self.free.pop(0) for _ in range(ticket.request.rows))
        slots = self.index([t.slots[0] for t in tickets])
        self.key[slots] = self.index([t.key for t in tickets])
        self.h[slots] = 0  # an idle row stands still, unless the network says nonsense there
        self.h[slots, 0] = self.start(tickets)
        self.pointer[slots] = self.index(first_rows)
        self.drawn[slots] = 0
        self.brings[slots] = self.index([t.brings for t in tickets]).bool()
        if self.estimate is not None:
            self.estimate[slots] = 0
        self.learned[slots] = self.number([float(self._learned(t)) for t in tickets])
        labels = [t.request.label for t in tickets]
        self.label[slots] = self.index([self.nothing if label is None else label for label in labels])
        self.guidance[slots] = self.number([t.request.guidance for t in tickets])
        clips = [(t.request.clip, t.table.clip) for t in tickets]
        self.clip[slots] = self.number([own if asked is None else asked for asked, own in clips])
        pairs = [t.slots for t in tickets if len(t.slots) == 2]
        if pairs:
            told, null = self.index(pairs).unbind(1)
            self.null[told], self.source[null] = null, told  # what a free slot is told is nothing already
        for ticket in tickets:
            for name, condition in ticket.conditions.items():
                self.conditions[name][ticket.slots[0]] = condition
            for name, condition in ticket.against.items():
                self.conditions[name][ticket.slots[1]] = condition
            if "mask" in ticket.given:
                self._keep(ticket)

    def release(self, slots: Sequence[int]) -> None:
        """Make these slots idle and free."""
        self.reset(slots)
        self.free = sorted([*self.free, *slots])

    def reset(self, slots: Sequence[int]) -> None:
        """Make these slots idle."""
        gone = self.index(slots)
        self.h[gone] = 0
        self.z[gone] = 0
        self.pointer[gone] = 0
        self.source[gone] = gone
        self.null[gone] = gone
        self.label[gone] = self.nothing
        self.learned[gone] = 0
        self.brings[gone] = False
        self.guidance[gone] = 1
        self.clip[gone] = torch.inf
        for name, null in self.nulls.items():
            self.conditions[name][gone] = null
        for name, kept in self.kept.items():
            kept[gone] = float(name == "mask")

    def bring(self, ticket: Ticket) -> None:
        """Noise of the request's own for the step at hand, where it has brought any."""
        if ticket.brings:
            self.z[ticket.slots[0]] = ticket.given["noise"][1 + len(ticket.table) - ticket.left]

    def allot(self) -> None:
        """Room for what is kept of images, unless there is: no image, and masks that keep nothing."""
        if not self.kept:
            paint = torch.ones_like(self.z)
            self.kept = {"init": torch.zeros_like(paint), "mask": paint, "noise": torch.zeros_like(paint)}

    def start(self, tickets: Sequence[Ticket]) -> Float[Tensor, "N P"]:
        """The first samples: noise of the table's scale, or the image noised to the table's first level."""
        noise, scale = self.first_noise(tickets), [t.table.initial_scale for t in tickets]
        x = self.number(scale)[:, None] * noise
        for i, ticket in enumerate(tickets):
            request, (alpha, sigma) = ticket.request, ticket.levels
            anew = request.mask is not None and request.strength == 1 and isinstance(request.solver, str)
            if request.init is not None and not anew:
                x[i] = alpha * ticket.given["init"] + sigma * noise[i]
        return x

    def first_noise(self, tickets: Sequence[Ticket]) -> Float[Tensor, "N P"]:
        """Draw 0 of each."""
        key = self.index([t.key for t in tickets])
        noise = self.noise(key, torch.zeros_like(key))
        for i, ticket in enumerate(tickets):
            if "noise" in ticket.given:
                noise[i] = ticket.given["noise"][0]
        return noise

    def noise(self, key: Int64[Tensor, "N"], draw: Int64[Tensor, "N"]) -> Float[Tensor, "N P"]:
        """The draws of these numbers from these streams: a function of key, draw and pixel alone."""
        return streams.normal(key[:, None], draw[:, None] * len(self.pixel) + self.pixel).to(self.dtype)

    def awake(self, chunk: int) -> list[int]:
        """The slots of every `chunk` neighbours of which one at least is taken; never none."""
        taken = set(range(self.inputs.rows)) - set(self.free)
        chunks = {slot // chunk for slot in taken} or {0}
        return [slot for slot in range(self.inputs.rows) if slot // chunk in chunks]

    def sample(self, slot: int) -> Float[Tensor, "*shape"]:
        """A copy of the present sample."""
        return self.h[slot, 0].view(self.inputs.shape).clone()

    def index(self, values: Sequence[int] | Sequence[tuple[int, ...]]) -> Tensor:
        """int64 on the device."""
        return sent(torch.tensor(values, dtype=torch.int64), self.device)

    def number(self, values: Sequence[float]) -> Float[Tensor, "N"]:
        """Of the state's type, on the device."""
        return sent(torch.tensor(values, dtype=self.dtype), self.device)

    def tensors(self) -> dict[str, Tensor]:
        """All that a step reads and writes, by name."""
        found = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        for group in GROUPS:
            found |= {f"{group} {name}": value for name, value in getattr(self, group).items()}
        return found

    def made_of(self, tensors: Mapping[str, Tensor]) -> Slots:
        """The same slots with these in place of their tensors."""
        made = copy.copy(self)
        for group in GROUPS:
            setattr(made, group, {name: tensors[f"{group} {name}"] for name in getattr(self, group)})
        for name in tensors.keys() & vars(self).keys():
            setattr(made, name, tensors[name])
        return made

    def _learned(self, ticket: Ticket) -> bool:
        return self.inputs.variance and ticket.request.solver == learned.NAME

    def _keep(self, ticket: Ticket) -> None:
        self.allot()
        slot = ticket.slots[0]
        self.kept["init"][slot] = ticket.given["init"]
        self.kept["mask"][slot] = ticket.given["mask"]
        self.kept["noise"][slot] = self.first_noise([ticket])[0]
