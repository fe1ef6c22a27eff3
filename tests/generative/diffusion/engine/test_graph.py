"""A turn as a CUDA graph: on a CUDA device where there is one, and everywhere on a stand-in that holds it to its rules.

The stand-in captures as CUDA does: what is asked for is written down and not done, with the memory that it reads and
writes; a replay does it again in the same memory, and no Python runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.unet import UNet
from generative.diffusion.engine import modes, rehearsal
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.engine.service import Service
from tests.generative.diffusion.engine.load import LOAD, Mixing, arriving, engine

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Recorder(TorchDispatchMode):
    """The operations in a with block, undone at its end; `replay` does them again."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.before: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), "a question"
        if func._schema.is_mutable:
            self.before.append((args[0], args[0].clone()))
        found = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, found))
        return found

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for tensor, value in reversed(self.before):
            tensor.copy_(value)
        self.before.clear()

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, found in self.done:
            new = func(*args, **kwargs)
            for old, each in zip(*((x,) if isinstance(x, Tensor) else x for x in (found, new)), strict=True):
                if old.data_ptr() != each.data_ptr():  # neither a view nor in place
                    old.copy_(each)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Takes the place of CUDA in `Captured`; the list holds what was captured."""
    captured: list[Recorder] = []

    class Stream:
        def wait_stream(self, other: object) -> None:
            assert isinstance(other, Stream)

    @contextmanager
    def graph(made: Recorder, **told: object) -> Iterator[None]:
        assert told["capture_error_mode"] == "thread_local"
        with made:
            yield
        captured.append(made)

    for name, value in {
        "CUDAGraph": Recorder,
        "Stream": Stream,
        "graph": graph,
        "current_stream": Stream,
        "stream": lambda stream: nullcontext(),
        "device": lambda device: nullcontext(),
        "graph_pool_handle": lambda: (0, 1),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return captured


def capturing(made: Engine) -> Engine:
    made.slots.device = torch.device("cuda")
    made.move = modes.Captured(made.core)
    made.slots.device = made.device
    return made


def test_requests_come_and_go_between_replays_without_a_new_capture(stand_in: list[Recorder]) -> None:
    """And the bits are the eager ones: no turn of a capture or before it has left a trace."""
    expected, shared = engine().sample(LOAD), capturing(engine())
    assert torch.equal(arriving(shared, LOAD), expected)
    assert len(stand_in) == 3  # drawn or not, and both drawn and kept
    assert torch.equal(shared.sample(LOAD[::-1]).flip(0), expected)
    assert torch.equal(arriving(shared, [LOAD[0], LOAD[4]]), expected[[0, 4]])
    assert torch.equal(shared.sample([LOAD[3]])[0], expected[3])
    assert len(stand_in) == 4
    shared.cancel(shared.submit(LOAD[1]))
    assert torch.equal(arriving(shared, LOAD), expected)
    assert len(stand_in) == 4


def test_tables_that_make_room_for_others_ask_for_no_new_capture(stand_in: list[Recorder]) -> None:
    expected, shared = engine().sample(LOAD), capturing(engine(room=8))
    for request in (LOAD[0], LOAD[0], Request(9, "ddim", 8), LOAD[0]):  # the third leaves no room for another
        found = shared.sample([request])[0]
        assert len(stand_in) == 1
    assert torch.equal(found, expected[0])
    assert torch.equal(arriving(shared, LOAD), expected)
    assert len(stand_in) <= 4


def test_turns_before_a_capture_leave_no_trace(stand_in: list[Recorder]) -> None:
    """Three would lead beyond the table, so they are taken back one by one."""
    shared = capturing(engine())
    assert isinstance(shared.move, modes.Captured)
    shared.submit(LOAD[0])
    images: list[tuple[int, Tensor]] = []
    while not images:
        images = shared.turn().finished
        shared.move.graphs.clear()
    assert torch.equal(images[0][1], engine().sample([LOAD[0]])[0])


def test_a_network_that_is_told_and_says_more_is_captured_too(stand_in: list[Recorder]) -> None:
    class Twofold(Mixing):
        def forward(self, x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
            sample, estimate = x.chunk(2, dim=1)
            return torch.cat([super().forward(sample + estimate, t, label, context), sample.tanh()], dim=1)

    def made() -> Engine:
        return engine(Twofold(), variance=True, self_conditioned=True)

    expected, shared = made().sample(LOAD), capturing(made())
    assert torch.equal(arriving(shared, LOAD), expected)
    rehearsal.prove(shared)
    assert torch.equal(shared.sample(LOAD), expected)


def test_elsewhere_it_is_refused() -> None:
    with pytest.raises(ValueError, match="mode='graph' and the engine is on the cpu; expected a CUDA device"):
        engine(mode="graph")


class Told(nn.Module):
    """A UNet that a condition is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(1, 1, width=16, multipliers=(1, 2), blocks=1, classes=3, head_width=16)
        draws = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.08, generator=draws)

    def forward(self, x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
        return self.unet(x + context.sum(1).view(-1, 1, 1, 1), t, label)


def on_cuda(mode: str, **told: Any) -> Engine:
    return engine(Told().to("cuda"), device="cuda", mode=mode, **told)


@needs_cuda
@pytest.mark.parametrize("mode", ["compiled", "graph"])
def test_on_cuda_every_mode_is_near_the_plain_one_and_blind_to_company(mode: str) -> None:
    shared = on_cuda(mode, prove=True)
    found = shared.sample(LOAD)
    torch.testing.assert_close(found, on_cuda("eager").sample(LOAD), rtol=1e-4, atol=1e-4)
    assert torch.equal(arriving(shared, LOAD[::-1]).flip(0), found)
    for request, sample in zip(LOAD, found, strict=True):
        assert torch.equal(shared.sample([request])[0], sample)


@needs_cuda
def test_on_cuda_a_graph_is_captured_once_for_a_variant() -> None:
    shared = on_cuda("graph", room=1000)
    first = arriving(shared, LOAD)
    assert isinstance(shared.move, modes.Captured)
    graphs = dict(shared.move.graphs)
    assert torch.equal(arriving(shared, LOAD), first)
    for steps in range(100, 1000, 100):
        shared.submit(Request(0, "ddpm", steps))
    for _ in range(1000):
        shared.turn()
    shared.drop()
    assert torch.equal(shared.sample(LOAD), first)
    assert shared.move.graphs.items() >= graphs.items()


@needs_cuda
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_on_cuda_no_turn_waits_for_the_device(mode: str) -> None:
    shared = on_cuda(mode)
    arriving(shared, LOAD)  # captures, which wait
    for request in LOAD:
        shared.submit(request)
    shared.turn()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            shared.turn()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
def test_on_cuda_a_service_captures_in_its_thread_while_others_prepare() -> None:
    with Service(on_cuda("graph")) as service:
        images = [future.result(120) for future in [service.submit(request) for request in LOAD * 3]]
    torch.testing.assert_close(torch.stack(images[:7]), on_cuda("eager").sample(LOAD), rtol=1e-4, atol=1e-4)
