"""A small network that is told all there is to tell, and seven requests that between them use every part of a turn."""

import torch
from torch import Tensor, nn

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import ClosedForms

SHAPE, ROWS = (1, 8, 8), 8
NULL = {"context": torch.tensor([0.3, -0.1])}
IMAGE = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1
HALF = (torch.arange(64.0).view(SHAPE) % 8 < 4).float()
OWN = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(2))


class Mixing(nn.Module):
    """Two products and a sine, for every row by itself."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(67, width), nn.Linear(width, 64)
        draws = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.1, generator=draws)

    def forward(self, x: Tensor, t: Tensor, label: Tensor, context: Tensor) -> Tensor:
        assert t.dtype == torch.float32
        told = torch.stack([(0.005 * t).sin().to(x.dtype), label.to(x.dtype)], dim=1)
        told = torch.cat([x.flatten(1), told, context.sum(1, keepdim=True)], dim=1)
        return self.out(torch.sin(self.into(told))).view(x.shape)


COMPILER = ClosedForms(cosine(), "v")
LOAD = [
    Request(0, "ddim", 3),
    Request(1, "ddpm", 6, 2.0, 1),
    Request(2, "dpmpp-2m", 5, 3.0, condition={"context": torch.ones(2)}, against={"context": -torch.ones(2)}),
    Request(3, "ddim", 4, init=IMAGE, mask=HALF, strength=0.8),
    Request(4, "ddpm", 4, noise=OWN, clip=0.5),
    Request(5, "heun", 3, label=2),
    Request(6, "ddpm", 3, init=-IMAGE, mask=HALF),
]


def engine(network: nn.Module | None = None, *, rows: int = ROWS, **told: object) -> Engine:
    network = Mixing() if network is None else network
    return Engine(network, SHAPE, COMPILER, rows=rows, classes=3, null=NULL, **told)  # type: ignore[arg-type]


def arriving(shared: Engine, requests: list[Request]) -> Tensor:
    """One more before every turn."""
    numbers, images = [], {}
    while len(images) < len(requests):
        if len(numbers) < len(requests):
            numbers.append(shared.submit(requests[len(numbers)]))
        images.update(shared.turn().finished)
    return torch.stack([images[number] for number in numbers])
