"""Peak memory of one model doing one job, each in a process of its own: what it takes above an empty one.

On the CPU that is the peak of the resident set, from when everything is imported; on CUDA what torch allocated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from benchmarks import attention, resident
from benchmarks.attention import DTYPES, OURS, Size


def peak(size: Size, way: str, job: str, device: str, dtype: str) -> float | None:
    """Bytes at the peak of two calls of a job, the model included; None where the system does not tell."""
    asked = {"size": asdict(size), "way": way, "job": job, "device": device, "dtype": dtype}
    found: float | None = resident.apart("benchmarks.attention_memory", asked, f"memory of {way}, {job}")
    return found


def _work(asked: Mapping[str, Any]) -> float | None:
    """In the child: make one model, do the job twice."""
    size = Size(**{**asked["size"], "rows": tuple(asked["size"]["rows"])})
    device, job = asked["device"], asked["job"]
    generator = torch.Generator().manual_seed(0)
    started = resident.began()
    made = attention.ours(size, generator) if asked["way"] == OURS else attention.peer(size)
    model = made.to(device=device, dtype=DTYPES[asked["dtype"]])
    if job == "generation":
        prompts = attention.words(size, max(size.rows), size.prompt, generator).to(device)
        call = attention.generation(model, prompts, size.new)
    else:
        do = {"forward": attention.forward, "training": attention.training}[job]
        call = do(model, attention.words(size, size.batch, size.length, generator).to(device))
    call()
    call()
    if device == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return resident.since(started)


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))  # noqa: T201  # whoever began this process reads it
