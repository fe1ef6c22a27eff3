"""What `benchmarks.diffusion` asks of everyone: equal requests at once, or mixed ones that arrive over time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from lab import streams

SOLVERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp-2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
STEPS, GUIDANCES = (10, 20, 30, 40, 50), (1.0, 3.0, 7.5)


@dataclass(frozen=True)
class Size:
    """The network and the load."""

    side: int = 32
    """Pixels of a latent's side."""
    widths: tuple[int, ...] = (64, 128, 128)
    """Channels of each level; all but the last attend."""
    context: int = 64
    """Features of a token of the prompt."""
    tokens: int = 77
    """Of a prompt."""
    batch: int = 16
    """Images of the homogeneous batch, and the largest group of the peer's."""
    rows: int = 16
    """Network rows of our engine."""
    requests: int = 64
    """Of the mixed load."""
    steps: int = 10
    """Of the homogeneous batch."""


@dataclass(frozen=True)
class Asked:
    """One request of the mixed load."""

    arrival: float
    """In seconds from the start."""
    solver: str
    steps: int
    guidance: float
    prompt: Tensor
    """[S, F]"""
    noise: Tensor
    """[*shape] that it begins with."""

    @property
    def kind(self) -> tuple[str, int, float]:
        """What a pipeline call can have one of."""
        return self.solver, self.steps, self.guidance


def load(size: Size, rate: float, seed: int = 0) -> list[Asked]:
    """The mixed load: `rate` requests a second on the mean."""
    at = torch.arange(size.requests)
    key = torch.tensor(streams.derive(seed, "load"))
    coin = [streams.uniform(key, at * 4 + i).tolist() for i in range(4)]
    moments = itertools.accumulate((-torch.log1p(-torch.tensor(coin[0])) / rate).tolist(), initial=0.0)
    names = list(SOLVERS)
    return [
        asked_of(size, moment, names[int(a * len(names))], STEPS[int(b * len(STEPS))], GUIDANCES[int(c * 3)], i)
        for i, (moment, a, b, c) in enumerate(zip(moments, *coin[1:], strict=False))
    ]


def equal(size: Size) -> list[Asked]:
    """The homogeneous batch."""
    return [asked_of(size, 0.0, "dpmpp-2m", size.steps, 7.5, i) for i in range(size.batch)]


def asked_of(size: Size, arrival: float, solver: str, steps: int, guidance: float, i: int) -> Asked:
    """Request i, with a prompt and a first noise of its own."""
    generator = streams.generator(i, "asked")
    prompt = torch.randn(size.tokens, size.context, generator=generator)
    return Asked(arrival, solver, steps, guidance, prompt, torch.randn(4, size.side, size.side, generator=generator))
