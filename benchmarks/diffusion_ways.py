"""The ways to serve a load that `benchmarks.diffusion` compares: our engine, and calls of diffusers' pipeline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from backbones.convert import unet
from backbones.cpu.swift import swift
from backbones.unet import UNet
from benchmarks.diffusion_load import SOLVERS, Asked, Size
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.solvers.schedulers import Schedulers

OURS, PEER = "quincunx", "diffusers"


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


@dataclass(frozen=True)
class Calls:
    """A way to call the peer's pipeline."""

    most: int
    """Equal requests a call, at most."""
    channels_last: bool = False
    """The memory layout of the network; else the one that it has by default."""


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
            swift(network, size.rows, size.side**2) if peer.device == "cpu" else network.to(peer.device),
            shape,
            Schedulers(peer.scheduler),
            rows=size.rows,
            null={"context": torch.zeros(size.tokens, size.context)},
            device=peer.device,
        )

    def request(self, one: Asked) -> Request:
        """The same request, in our words."""
        return Request(0, one.solver, one.steps, one.guidance, condition={"context": one.prompt}, noise=one.noise[None])


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
