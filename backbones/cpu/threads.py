"""Work on ranges, by as many threads as torch has."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import torch


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="quincunx")


os.register_at_fork(after_in_child=_pool.cache_clear)  # which has none of these threads


def shared(count: int, work: Callable[[int, int], Any], least: int = 1) -> None:
    """`work(low, high)` on 0 ... count - 1, in parts of `least` or more; none still runs afterwards."""
    if count == 0:
        return
    threads = max(1, min(torch.get_num_threads(), count // least))
    size = -(-count // threads)
    others: list[Future[Any]] = []
    try:
        for low in range(size, count, size):
            low = min(low, count - least)  # the last ones may be worked out twice, to the same
            others.append(_pool(threads).submit(work, low, min(low + size, count)))
        work(0, min(size, count))
    finally:  # an interrupt comes here, too
        wait(others)
    for part in others:
        part.result()
