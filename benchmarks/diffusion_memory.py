"""Peak memory of the homogeneous batch, ours and the peer's, each in a process of its own: above an empty one.

The peer's memory depends on its images a call and on its layout, so these are asked for: the way whose time counts is
the one whose memory counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from benchmarks import resident
from benchmarks.diffusion_load import Size, equal
from benchmarks.diffusion_ways import OURS, PEER, Calls, Ours, Peer, by_calls, by_engine


def peak(size: Size, calls: Calls | None, device: str) -> float | None:
    """Bytes at the peak of two batches of four steps, the model included; None where the system does not tell.

    Args:
        size: of the network and the batch.
        calls: how the peer's pipeline is called, or None for our engine.
        device: "cpu" or "cuda".

    Raises:
        RuntimeError: when the process stops, with its last line.
    """
    asked = {"size": asdict(size), "calls": None if calls is None else asdict(calls), "device": device}
    who = OURS if calls is None else PEER
    found: float | None = resident.apart("benchmarks.diffusion_memory", asked, f"memory of {who}")
    return found


def _work(asked: Mapping[str, Any]) -> float | None:
    size = Size(**{**asked["size"], "widths": tuple(asked["size"]["widths"]), "steps": 4})
    started = resident.began()
    batch = equal(size)
    if asked["calls"] is None:
        serve = partial(by_engine, Ours(size, Peer(size, asked["device"])), batch)
    else:
        calls = Calls(**asked["calls"])
        serve = partial(by_calls, Peer(size, asked["device"], channels_last=calls.channels_last), batch, calls.most)
    serve()
    serve()
    if asked["device"] == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resident.since(started)


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))  # noqa: T201  # whoever began this process reads it
