"""The engine in its thread. A network that waits at a gate says where the thread stands: nothing is left to time."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.engine.service import Image, Service
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import ClosedForms

SHAPE, LONG = (1, 4, 4), 60.0  # seconds that no test takes
FATAL, NAN = 1, 2  # labels at which the network raises, and at which it says nonsense


class Gate:
    """A network that tells when a call has come, and lets it through when it is told to."""

    def __init__(self) -> None:
        self.come, self.go = threading.Semaphore(0), threading.Semaphore(0)
        self.open = False

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.come.release()
        if not self.open:
            assert self.go.acquire(timeout=LONG)
        if (label == FATAL).any():
            raise ArithmeticError("the network broke")
        return torch.where((label == NAN).view(-1, 1, 1, 1), torch.nan, torch.sin(x))

    def arrived(self) -> None:
        """Wait until a call stands at the gate."""
        assert self.come.acquire(timeout=LONG)

    def unlock(self) -> None:
        """Let all through from now on."""
        self.open = True
        self.go.release()


def engine(gate: Gate, rows: int = 2) -> Engine:
    return Engine(gate, SHAPE, ClosedForms(cosine(), "v"), rows=rows, classes=3)


def alone(request: Request, rows: int = 2) -> Tensor:
    gate = Gate()
    gate.unlock()
    return engine(gate, rows).sample([request])[0]


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.unlock()  # a test that failed leaves no thread behind


def test_futures_and_the_stream_hold_what_the_engine_draws(gate: Gate) -> None:
    requests = [Request(i, "ddpm", 2 + i % 3, (1.0, 2.0)[i % 2], 0) for i in range(9)]
    gate.unlock()
    with Service(engine(gate)) as service:
        stream = service.stream()
        futures = [service.submit(request) for request in requests]
        images = [future.result(LONG) for future in futures]
    for request, image in zip(requests, images, strict=True):
        assert torch.equal(image, alone(request))
    streamed = list(stream)
    assert {future for future, _ in streamed} == set(futures)
    assert all(future.result() is image for future, image in streamed)
    assert list(stream) == []
    assert list(service.stream()) == []  # of a closed service


def test_a_full_queue_pushes_back_and_then_takes_again(gate: Gate) -> None:
    with Service(engine(gate, 1), queue=2) as service:
        futures = [service.submit(Request(0, "ddim", 2))]
        gate.arrived()  # the first has its row
        futures += [service.submit(Request(i, "ddim", 2)) for i in (1, 2)]
        with pytest.raises(queue.Full):
            service.submit(Request(3, "ddim", 2), timeout=0.0)
        late: list[Image] = []
        waiter = threading.Thread(target=lambda: late.append(service.submit(Request(3, "ddim", 2), LONG)))
        waiter.start()
        gate.unlock()
        waiter.join(LONG)
        for i, future in enumerate([*futures, *late]):
            assert torch.equal(future.result(LONG), alone(Request(i, "ddim", 2), 1))
        assert len(late) == 1


def test_what_fails_fails_alone(gate: Gate) -> None:
    gate.unlock()
    with Service(engine(gate)) as service:
        malformed, broken, good = (
            service.submit(Request(1, "ddpm", n, 1.0, label)) for n, label in ((0, 0), (3, NAN), (4, 0))
        )
        with pytest.raises(RequestError, match="steps is 0"):
            malformed.result(LONG)
        with pytest.raises(RequestError, match="sample is not finite"):
            broken.result(LONG)
        assert torch.equal(good.result(LONG), alone(Request(1, "ddpm", 4, 1.0, 0)))


def test_an_error_of_the_network_goes_to_those_in_its_rows_and_the_service_goes_on(gate: Gate) -> None:
    with Service(engine(gate)) as service:
        first = service.submit(Request(0, "ddim", 1, 2.0, 0))  # takes both rows
        gate.arrived()
        asked = [Request(1, "ddim", 3, 1.0, FATAL), Request(2, "ddim", 3, 1.0, 0), Request(3, "ddim", 3, 1.0, 0)]
        fatal, beside, after = [service.submit(request) for request in asked]
        gate.unlock()
        assert torch.equal(first.result(LONG), alone(Request(0, "ddim", 1, 2.0, 0)))
        for future in (fatal, beside):
            with pytest.raises(ArithmeticError, match="the network broke"):
                future.result(LONG)
        assert torch.equal(after.result(LONG), alone(asked[2]))


def test_a_future_is_cancelled_in_the_queue_and_in_its_row(gate: Gate) -> None:
    with Service(engine(gate, 1)) as service:
        running, waiting, last = (service.submit(Request(i, "ddim", 50 if i == 0 else 2)) for i in range(3))
        gate.arrived()
        assert service.cancel(running)
        assert waiting.cancel()
        gate.unlock()
        assert torch.equal(last.result(LONG), alone(Request(2, "ddim", 2), 1))
        for future in (running, waiting):
            with pytest.raises(CancelledError):
                future.result(LONG)
        assert not service.cancel(last)
        assert len(service.engine.running) == 0


def test_closing_finishes_what_is_there_or_cancels_it(gate: Gate) -> None:
    service = Service(engine(gate, 1))
    futures = [service.submit(Request(i, "ddim", 2)) for i in range(3)]
    gate.arrived()
    closing = threading.Thread(target=service.close)
    closing.start()
    gate.unlock()
    closing.join(LONG)
    assert all(future.done() and not future.cancelled() for future in futures)
    with pytest.raises(RuntimeError, match="the service is closed"):
        service.submit(Request(1))
    service.close()  # again, and nothing happens


def test_an_error_in_the_with_block_cancels_the_rest(gate: Gate) -> None:
    futures: list[Image] = []

    def interrupted() -> None:
        with Service(engine(gate, 1)) as service:
            futures.extend(service.submit(Request(i, "ddim", 1)) for i in range(3))
            gate.arrived()  # the first stands before its only step, the others wait
            futures[0].add_done_callback(lambda _: gate.unlock())
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert all(future.cancelled() for future in futures)


def test_who_waits_for_room_for_a_table_keeps_the_others_queued(gate: Gate) -> None:
    """A table of 4 rows runs and there is room for 5: those of 3 wait, though slots are free, and the queue fills."""
    small = Engine(gate, SHAPE, ClosedForms(cosine(), "v"), rows=8, classes=3, room=5)
    asked = [Request(seed, "ddim", 4 if seed == 0 else 3, label=0) for seed in range(5)]
    with Service(small, queue=2) as service:
        futures = []
        for request in asked[:3]:  # the last two are taken in before the second turn, and wait in the engine
            futures.append(service.submit(request, LONG))
            if len(futures) == 1:
                gate.arrived()
        gate.go.release()
        gate.arrived()
        futures += [service.submit(request, LONG) for request in asked[3:]]
        gate.go.release()
        gate.arrived()
        with pytest.raises(queue.Full):
            service.submit(Request(9, "ddim", 3, label=0), timeout=0.0)
        gate.unlock()
        for request, future in zip(asked, futures, strict=True):
            assert torch.equal(future.result(LONG), alone(request, rows=8))
