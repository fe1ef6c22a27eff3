"""Peak memory of the homogeneous batch, ours and the peer's, each in a process of its own: above an empty one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import resident
from benchmarks.diffusion import OURS
from benchmarks.diffusion_load import Size, equal
from benchmarks.diffusion_ways import Ours, Peer, by_calls, by_engine


def peak(size: Size, way: str, device: str) -> float | None:
    """Bytes at the peak of two batches of four steps, the model included; None where the system does not tell.

    Raises:
        RuntimeError: when the process stops, with its last line.
    """
    asked = {"size": asdict(size), "way": way, "device": device}
    return resident.apart("benchmarks.diffusion_memory", asked, way)


def _work(asked: Mapping[str, Any]) -> float | None:
    size = Size(**{**asked["size"], "widths": tuple(asked["size"]["widths"]), "steps": 4})
    started = resident.began()
    peer = Peer(size, asked["device"])
    batch = equal(size)
    ours = Ours(size, peer) if asked["way"] == OURS else None
    for _ in range(2):
        if ours is not None:
            by_engine(ours, batch)
        else:
            by_calls(peer, batch, size.batch)
    if asked["device"] == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resident.since(started)


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))  # noqa: T201  # this is what it is for
