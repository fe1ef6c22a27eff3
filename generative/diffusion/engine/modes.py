"""The ways to run a turn: as it stands, compiled, or as a CUDA graph.

All three change the same tensors in place, so requests join and leave in the same way. Samples are the same bits
whoever rides along in each of them, but one mode's last bits are not another's.

What "compiled" and "graph" hold on to is the network as it was called at the first turn: its weights may change where
they stand, as an optimiser or `load_state_dict` changes them; new ones in their place, or another structure, are not
seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from generative.diffusion.engine.step import Move, Step

WARM_UP = 3  # turns before a capture, as in torch's `make_graphed_callables`


class Compiled:
    """All but the noise by `torch.compile`; the first turn takes seconds for a small network, minutes for a large one.

    One function serves all turns: where no row draws, all of C is 0, and where no row keeps anything all masks are 1.
    The network is traced by running it once, so nothing is asked of how it is written but that it does not look at its
    numbers.

    The noise is drawn as in "eager", bit for bit: its integers are multiplied modulo 2^64, which C++ leaves undefined,
    and compiled code comes out wrong where it is not vectorised.
    """

    def __init__(self, step: Step) -> None:
        step.slots.allot()
        self.step = step
        self.call: Callable[..., Any] | None = None

    @torch.no_grad()
    def __call__(self, draws: bool, keeps: bool) -> None:
        if draws:
            self.step.draw()
        tensors = [*self.step.slots.tensors().values(), *self.step.shelf.tensors().values()]
        if self.call is None:
            traced = make_fx(self._denoise)(*(tensor.clone() for tensor in tensors))  # tracing runs it, too
            self.call = torch.compile(traced, fullgraph=True, dynamic=False)
        self.call(*tensors)

    def _denoise(self, *tensors: Tensor) -> list[Tensor]:
        """`Step.denoise` as a function of its tensors, which it changes in place; returns nothing."""
        slots, shelf = self.step.slots, self.step.shelf
        given = iter(tensors)
        slots = slots.made_of({name: next(given) for name in slots.tensors()})
        shelf = shelf.made_of({name: next(given) for name in shelf.tensors()})
        replace(self.step, slots=slots, shelf=shelf).denoise(True, True)
        return []


class Captured:
    """The whole turn as a CUDA graph, noise and all: one launch in place of hundreds.

    A graph is captured at the first turn of each of the four variants. All share the memory of what lies between:
    nothing of one outlives its replay. Requests may be prepared in other threads meanwhile, but there must be no other
    capture.

    Raises:
        ValueError: where the engine is not on a CUDA device.
    """

    def __init__(self, step: Step) -> None:
        self.step, self.device = step, step.slots.device
        if self.device.type != "cuda":
            raise ValueError(f"mode='graph' and the engine is on the {self.device.type}; expected a CUDA device")
        self.graphs: dict[tuple[bool, bool], Callable[[], None]] = {}
        with torch.cuda.device(self.device):
            self.side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, draws: bool, keeps: bool) -> None:
        if (draws, keeps) not in self.graphs:
            self.graphs[draws, keeps] = self._capture(draws, keeps)
        self.graphs[draws, keeps]()

    def _capture(self, draws: bool, keeps: bool) -> Callable[[], None]:
        """The replay of a graph of this variant."""
        graph, state = torch.cuda.CUDAGraph(), self.step.slots.tensors()
        with torch.cuda.device(self.device):
            now = torch.cuda.current_stream()
            before = {name: tensor.clone() for name, tensor in state.items()}
            self.side.wait_stream(now)
            with torch.cuda.stream(self.side):  # whatever is made on first use is made before the capture
                for _ in range(WARM_UP):
                    self.step(draws, keeps)
                    for name, tensor in state.items():  # this turn has not been
                        tensor.copy_(before[name])
            now.wait_stream(self.side)
            # an allocation in another thread breaks no capture that is this thread's alone
            with torch.cuda.graph(graph, pool=self.pool, stream=self.side, capture_error_mode="thread_local"):
                self.step(draws, keeps)
        return graph.replay


def eager(step: Step) -> Move:
    """As it stands."""
    return step


MODES: dict[str, Callable[[Step], Move]] = {"eager": eager, "compiled": Compiled, "graph": Captured}
