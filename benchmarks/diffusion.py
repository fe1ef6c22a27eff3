"""Images a second: our engine beside diffusers' `StableDiffusionPipeline`, with the same weights, in one run.

    homogeneous   one batch of equal requests: the same solver, steps and guidance, other prompts
    mixed         64 requests of 10 to 50 steps, guidance 1, 3 or 7.5, four solvers, arriving over time

The peer is what its users run: a pipeline call with the scheduler that a request asks for. It can serve a load one by
one, or as large groups of equal requests as wait, each with the memory layout that it has by default and with channels
last; whichever is fastest counts. Ours is the engine, with `backbones.winograd.swift` on a CPU. The network is a
UNet2DConditionModel on 32 x 32 latents; what both make are latents, as the autoencoder is the same. Before anything is
timed, images of both are compared.

Requests arrive by a Poisson process, at a rate that keeps every way busy; the same moments for all. Latency is from a
request's arrival to its image. Frequencies of the machine and whoever else uses it fall on all, as the ways take turns
in the homogeneous part.

Source of the peer's advice: diffusers' guide to speed and memory (channels last; torch.compile is not measured here).
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import diffusers
import torch
from torch import Tensor

from backbones.convert import unet
from backbones.cost import flops
from backbones.unet import UNet
from backbones.winograd import swift
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.solvers.schedulers import Schedulers
from lab import streams

OURS, PEER = "quincunx", "diffusers"
SOLVERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "dpmpp-2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
STEPS, GUIDANCES = (10, 20, 30, 40, 50), (1.0, 3.0, 7.5)
AGREE = 2e-3
"""Between latents of unit size, after 10 steps guided at 3, which enlarges what the networks differ by."""


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
    steps: int = 20
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


@dataclass(frozen=True)
class Served:
    """How one way served a load."""

    seconds: float
    latencies: list[float]
    images: list[Tensor]

    @property
    def images_per_second(self) -> float:
        return len(self.latencies) / self.seconds

    def latency(self, share: float) -> float:
        """The latency that this share of the requests did not exceed, in seconds."""
        return sorted(self.latencies)[max(0, -(-int(share * 100) * len(self.latencies) // 100) - 1)]


class Peer:
    """diffusers' pipeline around a network of random weights."""

    def __init__(self, size: Size, device: str, *, channels_last: bool = False) -> None:
        attending = len(size.widths) - 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network: Any = diffusers.UNet2DConditionModel(
                sample_size=size.side,
                layers_per_block=2,
                block_out_channels=size.widths,
                down_block_types=(*["CrossAttnDownBlock2D"] * attending, "DownBlock2D"),
                up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * attending),
                cross_attention_dim=size.context,
                attention_head_dim=4,
                use_linear_projection=True,
            ).eval()
        self.network.to(device)
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.device, self.scheduler = device, diffusers.DDIMScheduler(clip_sample=False, steps_offset=1)
        autoencoder = diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8, sample_size=size.side)
        self.pipeline: Any = diffusers.StableDiffusionPipeline(
            vae=autoencoder,
            text_encoder=None,
            tokenizer=None,
            unet=self.network,
            scheduler=self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipeline.set_progress_bar_config(disable=True)

    def images(self, group: Sequence[Asked]) -> Tensor:
        """The latents of equal requests, by one pipeline call."""
        solver, steps, guidance = group[0].kind
        self.pipeline.scheduler = getattr(diffusers, SOLVERS[solver]).from_config(self.scheduler.config)
        prompt = torch.stack([one.prompt for one in group]).to(self.device)
        found = self.pipeline(
            prompt_embeds=prompt,
            negative_prompt_embeds=torch.zeros_like(prompt),
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=torch.stack([one.noise for one in group]).to(self.device),
            output_type="latent",
        )
        latents: Tensor = found.images
        return latents


class Ours:
    """Our engine around the same weights."""

    def __init__(self, size: Size, peer: Peer) -> None:
        config = {**peer.network.config, "_class_name": "UNet2DConditionModel"}
        network = unet.load(config, peer.network.state_dict()).eval()
        self.plain: UNet = network
        shape = (4, size.side, size.side)
        self.engine = Engine(
            swift(network) if peer.device == "cpu" else network.to(peer.device),
            shape,
            Schedulers(peer.scheduler),
            rows=size.rows,
            null={"context": torch.zeros(size.tokens, size.context)},
            device=peer.device,
        )

    def request(self, one: Asked) -> Request:
        """The same request, in our words."""
        return Request(0, one.solver, one.steps, one.guidance, condition={"context": one.prompt}, noise=one.noise[None])


def load(size: Size, rate: float, seed: int = 0) -> list[Asked]:
    """The mixed load: `rate` requests a second on the mean."""
    at = torch.arange(size.requests)
    key = torch.tensor(streams.derive(seed, "load"))
    coin = [streams.uniform(key, at * 4 + i).tolist() for i in range(4)]
    moments = itertools.accumulate((-torch.log1p(-torch.tensor(coin[0])) / rate).tolist(), initial=0.0)
    names = list(SOLVERS)
    return [
        _asked(size, moment, names[int(a * len(names))], STEPS[int(b * len(STEPS))], GUIDANCES[int(c * 3)], i)
        for i, (moment, a, b, c) in enumerate(zip(moments, *coin[1:], strict=False))
    ]


def equal(size: Size) -> list[Asked]:
    """The homogeneous batch."""
    return [_asked(size, 0.0, "dpmpp-2m", size.steps, 7.5, i) for i in range(size.batch)]


def _asked(size: Size, arrival: float, solver: str, steps: int, guidance: float, i: int) -> Asked:
    generator = streams.generator(i, "asked")
    prompt = torch.randn(size.tokens, size.context, generator=generator)
    return Asked(arrival, solver, steps, guidance, prompt, torch.randn(4, size.side, size.side, generator=generator))


def by_engine(ours: Ours, asked: Sequence[Asked], clock: Callable[[], float] = time.perf_counter) -> Served:
    """Our way: everyone joins as they arrive."""
    engine, began = ours.engine, clock()
    engine.drop()
    latencies, images = [0.0] * len(asked), [torch.empty(0)] * len(asked)
    coming, left = 0, len(asked)
    while left:
        while coming < len(asked) and asked[coming].arrival <= clock() - began:
            engine.submit(ours.request(asked[coming]))
            coming += 1
        if not (engine.waiting or engine.running):
            time.sleep(max(0.0, asked[coming].arrival - (clock() - began)))
            continue
        for number, image in engine.turn().finished:
            latencies[number], images[number] = clock() - began - asked[number].arrival, image.cpu()
            left -= 1
    return Served(clock() - began, latencies, images)


def by_calls(peer: Peer, asked: Sequence[Asked], most: int, clock: Callable[[], float] = time.perf_counter) -> Served:
    """The peer's way: the oldest that waits, and up to `most - 1` of its kind that wait with it."""
    began = clock()
    latencies, images = [0.0] * len(asked), [torch.empty(0)] * len(asked)
    left = list(range(len(asked)))
    while left:
        now = clock() - began
        waiting = [i for i in left if asked[i].arrival <= now]
        if not waiting:
            time.sleep(max(0.0, asked[left[0]].arrival - now))
            continue
        group = [i for i in waiting if asked[i].kind == asked[waiting[0]].kind][:most]
        found = peer.images([asked[i] for i in group]).cpu()
        for i, image in zip(group, found, strict=True):
            latencies[i], images[i] = clock() - began - asked[i].arrival, image
        left = [i for i in left if i not in group]
    return Served(clock() - began, latencies, images)


def difference(peer: Peer, ours: Ours, size: Size) -> float:
    """The largest difference between latents of both, in 10 steps of each solver, of their standard deviation."""
    few = [_asked(size, 0.0, solver, 10, 3.0, i) for i, solver in enumerate(SOLVERS)]
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
    batch = equal(size)
    ways: dict[str, Callable[[], Served]] = {OURS: partial(by_engine, ours, batch)}
    for layout, peer in peers.items():
        ways[f"{PEER}{layout}"] = partial(by_calls, peer, batch, size.batch)
    for serve in ways.values():
        serve()
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
    fastest = peers[best.removeprefix(PEER)]
    asked = load(size, rate=2 * rates[OURS])
    served = {
        OURS: by_engine(ours, asked),
        f"{PEER}, one by one": by_calls(fastest, asked, 1),
        f"{PEER}, equal ones grouped": by_calls(fastest, asked, size.batch),
    }
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
