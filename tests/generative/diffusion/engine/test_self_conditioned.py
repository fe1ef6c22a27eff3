"""A network that is shown its last estimate: each slot has its own, clipped as its request says."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request, RequestError
from generative.diffusion.noise.continuous import EDM
from generative.diffusion.noise.schedule import Levels, Schedule, cosine, linear
from generative.diffusion.solvers.compiler import AllSolvers, ClosedForms

SHAPE, NULL = (2, 4, 4), 3


def network(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """Something smooth of the sample and of the estimate, every row by itself."""
    sample, estimate = x.chunk(2, dim=1)
    told = (0.003 * t + 0.4 * label).view(-1, 1, 1, 1)
    return torch.sin(1.3 * sample + told) + 0.5 * torch.tanh(2 * torch.roll(estimate, 1, -1) - told)


def engine(schedule: Schedule | None = None, prediction: Any = "v", rows: int = 8) -> Engine:
    compiler = ClosedForms(schedule or cosine(), prediction)
    return Engine(network, SHAPE, compiler, rows=rows, classes=NULL, self_conditioned=True, prove=True)


def noise(seed: int) -> Tensor:
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed))


def by_a_plain_loop(request: Request, levels: Levels, prediction: str) -> Tensor:
    """DDIM by hand (Song et al. 2021, eq. 12), its estimate kept from step to step."""
    assert request.noise is not None
    bound = math.inf if request.clip is None else request.clip
    x, last = levels.initial_scale * request.noise.double(), torch.zeros(1, *SHAPE).double()
    for k in range(len(levels)):
        alpha, sigma, alpha_next, sigma_next = (
            float(each[i]) for i in (k, k + 1) for each in (levels.alphas, levels.sigmas)
        )
        n = math.sqrt(alpha**2 / 4 + sigma**2)  # of x, for data of standard deviation 1/2
        shown = torch.cat([x if prediction == "v" else x / n, last], dim=1)
        told, null = (
            network(shown, levels.timesteps[k : k + 1], torch.tensor([label])) for label in (request.label, NULL)
        )
        output = null + request.guidance * (told - null)
        x0 = alpha * x - sigma * output if prediction == "v" else alpha / 4 / n**2 * x + sigma / 2 / n * output
        last = x0.clamp(-bound, bound)
        x = alpha_next * last + sigma_next * (x - alpha * last) / sigma
    return x[0].float()


STRANGERS = [
    Request(1, "ddpm", 6, 2.0, 1, clip=1.0),
    Request(2, "dpmpp-2m", 5),
    Request(3, "heun", 3, 1.0, 0),
    Request(4, "ddim", 3, init=torch.full(SHAPE, 0.5), mask=torch.tensor([0.0, 1.0]).repeat(2)),
]


@pytest.mark.parametrize("guidance", [1.0, 2.5])
@pytest.mark.parametrize("clip", [None, 0.6])
@pytest.mark.parametrize("prediction", ["v", "edm"])
def test_steps_are_those_of_a_plain_loop_among_strangers(guidance: float, clip: float | None, prediction: str) -> None:
    schedule: Schedule = cosine() if prediction == "v" else EDM()
    asked = Request(0, "ddim", 8, guidance, 2, clip=clip, noise=noise(1))
    found = engine(schedule, prediction).sample([STRANGERS[0], STRANGERS[1], asked, STRANGERS[2]])[2]
    levels = schedule.levels(8, None, 0)
    torch.testing.assert_close(found, by_a_plain_loop(asked, levels, prediction), rtol=1e-5, atol=2e-5)


def test_a_sample_is_its_own_whoever_rides_along_and_sat_there_before() -> None:
    asked = [*STRANGERS, Request(0, "ddim", 4, 3.0, 2, clip=0.5)]
    for rows in (8, 2):
        together = engine(rows=rows).sample([*asked, *asked])
        assert torch.equal(together[:5], together[5:])
        for request, sample in zip(asked, together[:5], strict=True):
            assert torch.equal(engine(rows=rows).sample([request])[0], sample)


def test_the_estimate_matters() -> None:
    """Without it the samples are others: the loop above would not notice a network that does not listen."""

    def deaf(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return network(torch.cat([x[:, :2], 0 * x[:, 2:]], dim=1), t, label)

    told = Engine(deaf, SHAPE, ClosedForms(cosine(), "v"), rows=8, classes=NULL, self_conditioned=True)
    assert not torch.allclose(told.sample(STRANGERS), engine().sample(STRANGERS), atol=0.01)


def test_solvers_without_an_estimate_are_refused() -> None:
    told = Engine(network, SHAPE, AllSolvers(linear(), "eps"), rows=2, classes=NULL, self_conditioned=True)
    with pytest.raises(RequestError, match="solver is 'kdpm2'; expected one that says an estimate of the clean data"):
        told.submit(Request(0, "kdpm2", 5))
    assert told.sample([Request(0, "unipc", 5)]).isfinite().all()
