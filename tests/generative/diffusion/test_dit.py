"""A DiT stands wherever a UNet stands: under the objective, and in the engine."""

import torch

from backbones.dit import DiT
from backbones.initialise import build
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import ClosedForms
from generative.diffusion.training.objective import DDPM
from lab import streams


def test_a_dit_learns_by_the_denoising_objective_and_draws_by_the_engine() -> None:
    """Data: one constant picture a class; after 60 updates a drawn picture is nearer its own class than the other."""
    network = build(lambda: DiT(4, 1, 2, 32, 1, 2, 2), torch.Generator().manual_seed(0))
    objective = DDPM(cosine(), "v", null=2)
    optimiser = torch.optim.Adam(network.parameters(), 5e-3)
    label = torch.arange(64) % 2
    image = (label * 1.6 - 0.8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)  # -0.8 or 0.8 everywhere
    for step in range(60):
        key = streams.bits(torch.tensor(streams.derive(0, "step", step)), torch.arange(64))
        loss = objective.loss(network, {"image": image, "label": label}, key).value.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    engine = Engine(network, (1, 4, 4), ClosedForms(cosine(), "v"), rows=16, classes=2)
    requests = [Request(i, "dpmpp-2m", 8, label=i % 2) for i in range(16)]
    drawn = engine.sample(requests)
    assert (drawn.mean((1, 2, 3)).sign() == (torch.arange(16) % 2) * 2.0 - 1).all()
    for i in (0, 7):
        alone = Engine(network, (1, 4, 4), ClosedForms(cosine(), "v"), rows=16, classes=2).sample([requests[i]])
        assert torch.equal(alone[0], drawn[i])
