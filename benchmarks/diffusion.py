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
in rounds, every other one backwards (see `diffusion_rounds`). A mixed load takes minutes, so only its first round is of
all ways, and the later ones of ours and of the peer's fastest in the first.

Source of the peer's advice: diffusers' guide to speed and memory (channels last; torch.compile is not measured here).
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from backbones.cost import flops
from benchmarks.diffusion_load import SOLVERS, Size, asked_of, equal, load
from benchmarks.diffusion_rounds import compared, median_rate, take_turns
from benchmarks.diffusion_ways import OURS, PEER, Calls, Ours, Peer, Served, by_calls, by_engine

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


def row_flops(size: Size, network: nn.Module) -> int:
    """Floating-point operations of the network for one row, counted where it stands: an engine may be using it."""
    device = next(network.parameters()).device
    return flops(
        network,
        torch.zeros(1, 4, size.side, size.side, device=device),
        torch.zeros(1, device=device),
        None,
        torch.zeros(1, size.tokens, size.context, device=device),
    )


def measure(size: Size, device: str, rounds: int = 3) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """(part, what was found) of "setting", "homogeneous" and "mixed", as each is done.

    Of the last two also (part, whose turn it is, in words) before each turn.
    """
    peers = {last: Peer(size, device, channels_last=last) for last in (False, True)}
    layouts = {False: PEER, True: f"{PEER}, channels last"}
    ours = Ours(size, peers[False])
    apart = difference(peers[False], ours, size)
    yield "setting", {"difference": apart, "parameters": sum(p.numel() for p in ours.plain.parameters())}

    batch, short = equal(size), equal(dataclasses.replace(size, steps=2))
    groups = sorted({max(1, size.batch // 4), max(1, size.batch // 2), size.batch})
    by_engine(ours, short)  # everyone once for nothing: what is compiled or laid out at first is not counted
    for peer in peers.values():
        for most in {1, *groups}:
            by_calls(peer, short[:most], most)
    calls = {f"{layouts[last]}, {most} a call": Calls(most, last) for last in peers for most in groups}
    ways: dict[str, Callable[[], Served]] = {OURS: partial(by_engine, ours, batch)}
    for way, how in calls.items():
        ways[way] = partial(by_calls, peers[how.channels_last], batch, how.most)
    served = yield from take_turns("homogeneous", ways, rounds)
    equals, rates = compared(served), {way: median_rate(found) for way, found in served.items()}
    work = row_flops(size, ours.plain) * 2 * size.steps  # of an image: guided, so two rows
    machine = matrix_rate(device)
    yield (
        "homogeneous",
        {
            **equals,
            "peer_calls": dataclasses.asdict(calls[equals["peer_way"]]),
            "all": rates,
            "share_of_matrix_rate": {way: rate * work / machine for way, rate in rates.items()},
            "matrix_flops_per_second": machine,
        },
    )

    asked = load(size, rate=2 * rates[OURS])
    ways = {OURS: partial(by_engine, ours, asked)}
    for last, peer in peers.items():
        ways[f"{layouts[last]}, one by one"] = partial(by_calls, peer, asked, 1)
        ways[f"{layouts[last]}, grouped"] = partial(by_calls, peer, asked, size.batch)
    served = yield from take_turns("mixed", ways, rounds, narrow=True)
    yield (
        "mixed",
        {
            **compared(served),
            "arrived_within": asked[-1].arrival,
            "all": {
                way: {
                    "images_per_second": median_rate(found),
                    "p50": statistics.median(one.latency(0.5) for one in found),
                    "p99": statistics.median(one.latency(0.99) for one in found),
                    "rounds": len(found),
                }
                for way, found in served.items()
            },
        },
    )
