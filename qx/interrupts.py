"""Ctrl-C that lets a training loop come to rest first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def until_at_rest(*, alone: bool) -> Iterator[Callable[[], bool]]:
    """Whether there was a Ctrl-C: in here the first one waits to be asked for, and the second interrupts at once.

    Who is not alone is sent it again by a launcher, so there the second waits, too; where nobody comes to rest, the
    launcher kills them all (torchrun within half a minute).
    """
    waiting: list[int] = []

    def note(number: int, _: object) -> None:
        waiting.append(number)
        if alone:
            signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread()  # no other thread may say what a signal does
    if not ours or before is not signal.default_int_handler:  # another handler, or a job that is to ignore it
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(waiting)
    finally:
        signal.signal(signal.SIGINT, before if alone or not waiting else signal.SIG_IGN)
