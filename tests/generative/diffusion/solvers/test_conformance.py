"""The engine beside diffusers: every linear scheduler on a real UNet in one batch, and what makes a table of a name."""

from collections.abc import Callable

import diffusers
import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import ClosedForms
from generative.diffusion.solvers.probe import compile_scheduler
from tests.oracles.schedulers import LINEAR, loop

SHAPE, NULL = (3, 8, 8), 10
Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@pytest.fixture(scope="module")
def network() -> Network:
    unet = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=NULL + 1,
    )
    draws = torch.Generator().manual_seed(0)
    for weight in unet.parameters():
        torch.nn.init.normal_(weight, std=0.15, generator=draws)
    return lambda x, t, label: 4 * unet(x, t, label).sample  # of the size of noise, so that every row counts


def alone(network: Network, label: int, guidance: float) -> Callable[[Tensor, float], Tensor]:
    """The network as a loop of diffusers' pipelines calls it."""

    def call(x: Tensor, t: float) -> Tensor:
        told, null = (network(x, torch.tensor([t]), torch.tensor([i])) for i in (label, NULL))
        return null + guidance * (told - null)

    return call


def strangers() -> list[Request]:
    solvers, guidances = ("ddpm", "ddim", "dpmpp-2m"), (1.0, 3.0, 7.5)
    return [Request(i, solvers[i % 3], 3 + i % 7, guidances[i % 5 % 3], i % 10, clip=1.0) for i in range(40)]


def trajectories(engine: Engine, requests: list[Request]) -> list[Tensor]:
    """Every sample on the way of each request, [S, *shape]."""
    paths: list[list[Tensor]] = [[] for _ in requests]
    for tick in engine.steps(requests):
        for number in tick.running:
            paths[number].append(engine.peek(number))
        for number, sample in tick.finished:
            paths[number].append(sample)
    return [torch.stack(path) for path in paths]


@torch.no_grad()
def test_every_scheduler_goes_its_own_way_in_one_batch(network: Network) -> None:
    """12 steps each, in float32, to 1e-4 of the largest pixel at every step; a third are guided."""
    draws = torch.Generator().manual_seed(1)
    requests = []
    for i, (kind, arguments, _) in enumerate(LINEAR):
        table = compile_scheduler(kind(**arguments), 12)
        noise = torch.randn(1 + len(table), *SHAPE, generator=draws)
        requests.append(Request(0, table, guidance=(1.0, 2.5, 1.0)[i % 3], label=i % 10, noise=noise))
    engine = Engine(network, SHAPE, ClosedForms(cosine(), "v"), rows=64, classes=NULL)
    mixed = [request for pair in zip(requests, strangers() + strangers(), strict=False) for request in pair]
    paths = trajectories(engine, mixed)[::2]
    for request, path, (kind, arguments, _) in zip(requests, paths, LINEAR, strict=True):
        scheduler = kind(**arguments)
        scheduler.set_timesteps(12)
        start = request.solver.initial_scale * request.noise[0]
        expected = loop(scheduler, alone(network, request.label, request.guidance), start, request.noise[1:])
        size = expected.abs().amax((1, 2, 3), keepdim=True)
        torch.testing.assert_close(path / size, expected / size, rtol=0, atol=1e-4, msg=lambda m, k=kind: f"{k}: {m}")
