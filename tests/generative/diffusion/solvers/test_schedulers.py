"""diffusers' solvers by name, beside ours."""

from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.noise.schedule import cosine, linear
from generative.diffusion.solvers.compiler import AllSolvers, ClosedForms
from generative.diffusion.solvers.probe import compile_scheduler
from generative.diffusion.solvers.schedulers import NAMES, Schedulers

SHAPE = (1, 4, 4)
GIVEN = diffusers.DDPMScheduler(clip_sample=False)


def network(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
    """Some smooth answer of the size that noise has; every row by itself."""
    return torch.sin(1.7 * x + 0.003 * t.view(-1, 1, 1, 1)) + 0.2 * torch.roll(x, 1, -1)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize(
    ("name", "same"), [("dpmpp-2m", "dpmpp-2m"), ("euler", "ddim"), ("ddim", "ddim"), ("ddpm", "ddpm")]
)
def test_an_estimate_that_diffusers_never_clips_is_clipped_as_our_solvers_do(
    name: str, same: str, prediction: Any
) -> None:
    """Its tables, told of the estimate, beside the closed forms; Euler's steps are DDIM's in other coordinates."""
    theirs = Engine(network, SHAPE, AllSolvers(linear(), prediction).diffusers, rows=2)
    ours = Engine(network, SHAPE, ClosedForms(linear(), prediction), rows=2)
    asked = [(Request(s, name, 8, clip=c), Request(s, same, 8, clip=c)) for s, c in ((1, 0.4), (2, None), (3, 0.1))]
    for found, expected in zip(theirs.sample([a for a, _ in asked]), ours.sample([b for _, b in asked]), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


def test_every_name_makes_a_table_of_its_own_family() -> None:
    """And ours come first, then diffusers' on the same noise, whatever the schedule."""
    given = {"EDM": diffusers.EDMEulerScheduler(), "FlowMatch": diffusers.FlowMatchEulerDiscreteScheduler()}
    given["IPNDM"] = diffusers.IPNDMScheduler()
    for name, (kind, _) in NAMES.items():
        scheduler = next((s for start, s in given.items() if kind.startswith(start)), GIVEN)
        assert len(Schedulers(scheduler)(name, 8, 0, None)) >= 8, name
    assert torch.equal(Schedulers(GIVEN)("default", 8, 2, None).C, compile_scheduler(GIVEN, 8, begin=2).C)
    for schedule in (linear(), cosine()):
        every = AllSolvers(schedule, "v")
        assert torch.equal(every("ddim", 8, 2, 0.5).C, ClosedForms(schedule, "v")("ddim", 8, 2, 0.5).C)
        timesteps = torch.tensor([999, 874, 749, 624, 499, 374, 249, 124])
        sigma = schedule.sigma(timesteps) / schedule.alpha(timesteps)
        torch.testing.assert_close(
            every("euler-karras", 8, 0, None).sigma[0], (schedule.sigmas / schedule.alphas)[-1], rtol=1e-3, atol=0
        )
        torch.testing.assert_close(every("lms", 8, 0, None).sigma, sigma, rtol=1e-3, atol=0)
