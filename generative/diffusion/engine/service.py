"""The engine in a thread of its own: requests go in from anywhere, futures come out.

    with Service(engine) as service:
        future = service.submit(Request(seed=1))      # waits while the queue is full
        image = future.result()

Back-pressure: the engine takes from the queue only what it has rows for, so a full queue means that work comes in
faster than it is done. Whatever fails fails alone: a malformed request, a sample that is not finite; an error of the
network fails those that were in its rows.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from types import TracebackType

from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.engine.ticket import Ticket

Image = Future[Tensor]


class Service:
    """Turns an engine for as long as there is work.

    Args:
        engine: nobody else may use it meanwhile.
        queue: requests that may wait. More let bursts in; fewer say sooner that it is too much.
    """

    def __init__(self, engine: Engine, queue: int = 256) -> None:
        self.engine, self.size = engine, queue
        self.queued: list[tuple[Ticket, Image]] = []
        self.running: dict[int, Image] = {}
        self.streams: weakref.WeakSet[Stream] = weakref.WeakSet()  # one that nobody reads any more is forgotten
        self.closed = self.ended = False
        self.change = threading.Condition()  # of all of the above; the engine's own state is the thread's alone
        self.compiling = threading.Lock()  # a scheduler is probed by one at a time
        self.thread = threading.Thread(target=self._serve, name="diffusion", daemon=True)
        self.thread.start()

    def submit(self, request: Request, timeout: float | None = None) -> Image:
        """A future of the sample; `cancel()` of it works until it is done.

        An invalid request's future holds its RequestError at once.

        Raises:
            queue.Full: when the queue is full for `timeout` seconds; None waits as long as it takes.
            RuntimeError: when the service is closed.
        """
        future: Image = Future()
        try:
            with self.compiling:
                ticket = self.engine.prepare(request)
        except RequestError as error:
            future.set_exception(error)
            return future
        with self.change:
            if not self.change.wait_for(lambda: self.closed or len(self.queued) < self.size, timeout):
                raise queue.Full
            if self.closed:
                raise RuntimeError("the service is closed")
            self.queued.append((ticket, future))
            self.change.notify_all()
        future.add_done_callback(self._wake)
        return future

    def cancel(self, future: Image) -> bool:
        """Take back what is not done yet, waiting or running; False when it is."""
        return future.cancel()

    def stream(self) -> Stream:
        """(future, sample) of all that finish from now on, until the service is closed. Keeps what is not taken out."""
        with self.change:
            found = Stream()
            self.streams.add(found)
            if self.ended:
                found.put(None)
        return found

    def close(self, cancel: bool = False) -> None:
        """Take nothing more in, finish (or cancel) what is there, and stop."""
        with self.change:
            self.closed = True
            pending = [*(future for _, future in self.queued), *self.running.values()]
            self.change.notify_all()
        for future in pending if cancel else []:
            future.cancel()
        self.thread.join()

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=error is not None)

    def _serve(self) -> None:
        """The thread: take in, turn, hand out, until closed and empty."""
        while True:
            with self.change:
                self.change.wait_for(lambda: self.queued or self.running or self.closed)
                if not self.queued and not self.running:
                    break
                self._forget_cancelled()
                self._take_in()
            if not self.running:
                continue
            try:
                tick = self.engine.turn()
                results: list[tuple[int, Tensor | BaseException]] = [*tick.finished, *tick.failed]
            except Exception as error:  # of the network, whatever it is: it goes to all whose rows it saw
                seen = [ticket.number for ticket in self.engine.running] or list(self.running)
                results = [(number, error) for number in seen]
                for number in seen:
                    self.engine.cancel(number)
            self._hand_out(results)
        with self.change:
            self.ended = True
            for stream in self.streams:
                stream.put(None)

    def _forget_cancelled(self) -> None:
        self.queued = [(ticket, future) for ticket, future in self.queued if not future.cancelled()]
        for number in [number for number, future in self.running.items() if future.cancelled()]:
            self.engine.cancel(number)
            del self.running[number]

    def _take_in(self) -> None:
        """First come, first served, as long as there are rows, and nobody waits for room for a solver's table."""
        room = 0 if self.engine.waiting else len(self.engine.slots.free)
        while self.queued and self.queued[0][0].request.rows <= room:
            ticket, future = self.queued.pop(0)
            room -= ticket.request.rows
            self.running[self.engine.enqueue(ticket)] = future
        self.change.notify_all()

    def _hand_out(self, results: list[tuple[int, Tensor | BaseException]]) -> None:
        for number, result in results:
            with self.change:
                future, streams = self.running.pop(number), list(self.streams)
            if not future.set_running_or_notify_cancel():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
                continue
            future.set_result(result)
            for stream in streams:
                stream.put((future, result))

    def _wake(self, _: Image) -> None:
        with self.change:
            self.change.notify_all()


class Stream(Iterator[tuple[Image, Tensor]]):
    """(future, sample) in the order in which they finished; waits for the next; ends with its service."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[tuple[Image, Tensor] | None] = queue.SimpleQueue()

    def put(self, item: tuple[Image, Tensor] | None) -> None:
        """One more, or None for the end."""
        self.items.put(item)

    def __next__(self) -> tuple[Image, Tensor]:
        item = self.items.get()
        if item is None:
            self.items.put(None)  # for whoever asks again
            raise StopIteration
        return item
