"""Images a second: our engine beside diffusers' `StableDiffusionPipeline`, with the same weights, in one run.

    homogeneous   one batch of equal requests: the same solver, steps and guidance, other prompts
    mixed         64 requests of 10 to 50 steps, guidance 1, 3 or 7.5, four solvers, arriving over time

The peer is what its users run: a pipeline call with the scheduler that a request asks for. It can serve a load one by
one, or groups of as many equal requests as wait, four, eight or a whole batch at most, each with the memory layout that
it has by default and with channels last; whichever is fastest counts. Ours is the engine, with `backbones.cpu.swift` on
a CPU. The network is a UNet2DConditionModel on 32 x 32 latents; what both make are latents, as the autoencoder is the
same. Before anything is timed, images of both are compared.

Requests arrive by a Poisson process, at a rate that keeps every way busy; the same moments for all. Latency is from a
request's arrival to its image. Frequencies of the machine and whoever else uses it fall on all, as the ways take turns
in the homogeneous part.

Source of the peer's advice: diffusers' guide to speed and memory (channels last; torch.compile is not measured here).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from backbones.cost import flops
from benchmarks.diffusion_load import SOLVERS, Size, asked_of, equal, load
from benchmarks.diffusion_ways import Ours, Peer, Served, by_calls, by_engine

OURS, PEER = "quincunx", "diffusers"
AGREE = 2e-3
"""Between latents of unit size, after 10 steps guided at 3, which enlarges what the networks differ by."""


def difference(peer: Peer, ours: Ours, size: Size) -> float:
    """The largest difference between latents of both, in 10 steps of each solver, of their standard deviation."""
    few = [asked_of(size, 0.0, solver, 10, 3.0, i) for i, solver in enumerate(SOLVERS)]
    mine = ours.engine.sample([ours.request(one) for one in few]).cpu()
    theirs = torch.cat([peer.images([one]).cpu() for one in few])
    return ((mine - theirs).abs().amax() / theirs.std()).item()


def matrix_rate(device: str, n: int = 2048) -> float:
    """FLOP a second of a square float32 product: the best of ten."""
    a, b = torch.randn(2, n, n, device=device)

    def seconds() -> float:
        began = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return 2 * n**3 / min(seconds() for _ in range(10))


def row_flops(size: Size, ours: Ours) -> int:
    """Floating-point operations of the network for one row, counted directly."""
    return flops(
        ours.plain.cpu(),
        torch.zeros(1, 4, size.side, size.side),
        torch.zeros(1),
        None,
        torch.zeros(1, size.tokens, size.context),
    )


def homogeneous(ways: dict[str, Callable[[], Served]], rounds: int) -> dict[str, float]:
    """Images a second of each way, the median over rounds in which all take turns."""
    rates: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for way, serve in ways.items():
            rates[way].append(serve().images_per_second)
    return {way: statistics.median(found) for way, found in rates.items()}


def measure(size: Size, device: str, rounds: int = 3) -> Iterator[tuple[str, dict[str, Any]]]:
    """(part, what was found) of "setting", "homogeneous" and "mixed", as each is done."""
    peers = {"": Peer(size, device), ", channels last": Peer(size, device, channels_last=True)}
    ours = Ours(size, peers[""])
    apart = difference(peers[""], ours, size)
    yield "setting", {"difference": apart, "parameters": sum(p.numel() for p in ours.plain.parameters())}
    batch, short = equal(size), equal(dataclasses.replace(size, steps=2))
    groups = sorted({max(1, size.batch // 4), max(1, size.batch // 2), size.batch})
    ways: dict[str, Callable[[], Served]] = {OURS: partial(by_engine, ours, batch)}
    by_engine(ours, short)  # everyone once for nothing: what is compiled or laid out at first is not counted
    for layout, peer in peers.items():
        for most in groups:
            ways[f"{PEER}{layout}, {most} a call"] = partial(by_calls, peer, batch, most)
            by_calls(peer, short[:most], most)
        by_calls(peer, short[:1], 1)
    rates = homogeneous(ways, rounds)
    best = max((way for way in rates if way != OURS), key=lambda way: rates[way])
    work = row_flops(size, ours) * 2 * size.steps  # of an image: guided, so two rows
    machine = matrix_rate(device)
    yield (
        "homogeneous",
        {
            "ratio": rates[OURS] / rates[best],
            "images_per_second": rates[OURS],
            "peer": rates[best],
            "peer_way": best,
            "all": rates,
            "share_of_matrix_rate": {way: rate * work / machine for way, rate in rates.items()},
            "matrix_flops_per_second": machine,
        },
    )
    asked = load(size, rate=2 * rates[OURS])
    served = {OURS: by_engine(ours, asked)}
    for layout, peer in peers.items():
        served[f"{PEER}{layout}, one by one"] = by_calls(peer, asked, 1)
        served[f"{PEER}{layout}, grouped"] = by_calls(peer, asked, size.batch)
    best = max((way for way in served if way != OURS), key=lambda way: served[way].images_per_second)
    yield (
        "mixed",
        {
            "ratio": served[OURS].images_per_second / served[best].images_per_second,
            "images_per_second": served[OURS].images_per_second,
            "peer": served[best].images_per_second,
            "peer_way": best,
            "arrived_within": asked[-1].arrival,
            "all": {
                way: {"images_per_second": one.images_per_second, "p50": one.latency(0.5), "p99": one.latency(0.99)}
                for way, one in served.items()
            },
        },
    )
