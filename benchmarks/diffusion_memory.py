"""Peak memory of the homogeneous batch, ours and the peer's, each in a process of its own: above an empty one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import diffusion, resident
from benchmarks.diffusion import OURS, Size


def peak(size: Size, way: str, device: str) -> float | None:
    """Bytes at the peak of two batches of four steps, the model included; None where the system does not tell.

    Raises:
        RuntimeError: when the process stops, with its last line.
    """
    asked = json.dumps({"size": asdict(size), "way": way, "device": device})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.diffusion_memory", asked],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"memory of {way}: {(done.stderr.strip().splitlines() or ['it stopped'])[-1][:200]}")
    found: float | None = json.loads(done.stdout.splitlines()[-1])
    return found


def _work(asked: Mapping[str, Any]) -> float | None:
    size = Size(**{**asked["size"], "widths": tuple(asked["size"]["widths"]), "steps": 4})
    started = resident.began()
    peer = diffusion.Peer(size, asked["device"])
    batch = diffusion.equal(size)
    ours = diffusion.Ours(size, peer) if asked["way"] == OURS else None
    for _ in range(2):
        if ours is not None:
            diffusion.by_engine(ours, batch)
        else:
            diffusion.by_calls(peer, batch, size.batch)
    if asked["device"] == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resident.since(started)


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))  # noqa: T201  # this is what it is for
