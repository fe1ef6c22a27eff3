"""The figures of diffusers' own tests of its schedulers, met by the engine.

There, four images that count from 0 to 1 are sampled with the network x t / (t + 1), and the sum and mean of the
absolute values at the end are stated (github.com/huggingface/diffusers, tests/schedulers, test_full_loop_* of each).
Here the four are four requests, and all cases ride in one batch.
"""

from dataclasses import dataclass, field
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.noise.schedule import linear
from generative.diffusion.solvers.compiler import ClosedForms
from generative.diffusion.solvers.probe import compile_scheduler

S = diffusers
ASCENDING = (torch.arange(768.0) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
DESCENDING = (torch.arange(768.0).flip(0) / 768).reshape(3, 8, 8, 4).permute(3, 0, 1, 2)
LATENT = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
OLD = {"num_train_timesteps": 1100, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
DPM = {"final_sigmas_type": "sigma_min"}
V = {"prediction_type": "v_prediction"}


def scaled_in_place(kind: Any) -> Any:
    """A scheduler as those tests use some: `scale_model_input` takes the place of the sample, also for the step."""

    class InPlace(kind):  # type: ignore[misc]
        def step(self, model_output: Tensor, timestep: Any, sample: Tensor, generator: Any = None) -> Any:
            told = {} if generator is None else {"generator": generator}
            return super().step(model_output, timestep, self.scale_model_input(sample, timestep), **told)

    InPlace.__module__ = kind.__module__
    return InPlace


@dataclass
class Case:
    scheduler: Any
    total: float | None
    mean: float
    steps: int = 10
    begin: int | None = None  # noised there, with the descending image for noise
    told: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case(S.DDPMScheduler(), 258.9606, 0.3372, steps=1000),
    Case(S.DDPMScheduler(**V), 202.0296, 0.2631, steps=1000),
    Case(S.DDPMScheduler(), 387.9466, 0.5051, steps=1000, begin=998),
    Case(S.DDIMScheduler(), 172.0067, 0.223967),
    Case(S.DDIMScheduler(**V), 52.5302, 0.0684),
    Case(S.DDIMScheduler(set_alpha_to_one=True, beta_start=0.01), 149.8295, 0.1951),
    Case(S.DDIMScheduler(set_alpha_to_one=False, beta_start=0.01), 149.0784, 0.1941),
    Case(S.DDIMScheduler(), 354.5418, 0.4616, begin=8),
    Case(S.DDIMInverseScheduler(), 671.6816, 0.8746),
    Case(S.DDIMInverseScheduler(**V), 1394.2185, 1.8154),
    Case(S.PNDMScheduler(), 198.1318, 0.2580),
    Case(S.PNDMScheduler(**V), 67.3986, 0.0878),
    Case(S.PNDMScheduler(set_alpha_to_one=True, beta_start=0.01), 230.0399, 0.2995),
    Case(S.PNDMScheduler(set_alpha_to_one=False, beta_start=0.01), 186.9482, 0.2434),
    Case(S.DPMSolverMultistepScheduler(**DPM, lower_order_final=False), None, 0.3301),
    Case(S.DPMSolverMultistepScheduler(**DPM, lower_order_final=False, **V), None, 0.2251),
    Case(S.DPMSolverSinglestepScheduler(**DPM), None, 0.2791),
    Case(S.DPMSolverSinglestepScheduler(**DPM, **V), None, 0.1453),
    Case(S.UniPCMultistepScheduler(**DPM), None, 0.2464),
    Case(S.UniPCMultistepScheduler(**DPM, use_karras_sigmas=True), None, 0.2925),
    Case(S.UniPCMultistepScheduler(**DPM, **V), None, 0.1014),
    Case(S.UniPCMultistepScheduler(**DPM, use_karras_sigmas=True, **V), None, 0.1966),
    Case(S.UniPCMultistepScheduler(**DPM), 315.5757, 0.4109, begin=8),
    Case(S.DEISMultistepScheduler(), None, 0.23916),
    Case(S.DEISMultistepScheduler(**V), None, 0.091),
    Case(S.DEISMultistepScheduler(), 315.3016, 0.41054, begin=8),
    Case(S.LCMScheduler(**LATENT), 18.7097, 0.0244, steps=1),
    Case(S.LCMScheduler(**LATENT), 197.7616, 0.2575),
    Case(S.TCDScheduler(**LATENT), 29.8715, 0.0389, steps=1, told={"eta": 0.0}),
    Case(S.TCDScheduler(**LATENT), 181.2040, 0.2359, told={"eta": 0.0}),
    Case(S.EDMEulerScheduler(num_train_timesteps=256), 34.1855, 0.044),
    Case(S.UnCLIPScheduler(), 252.2682495, 0.3284743, steps=1000),
    Case(S.CMStochasticIterativeScheduler(num_train_timesteps=201), 192.7614, 0.2510, steps=1),
    Case(scaled_in_place(S.EulerDiscreteScheduler)(**OLD), 10.0807, 0.0131),
    Case(scaled_in_place(S.EulerDiscreteScheduler)(**OLD, **V), 0.0002, 2.2676e-06),
    Case(scaled_in_place(S.EulerDiscreteScheduler)(**OLD, use_karras_sigmas=True), 124.52299499511719, 0.162139326),
    Case(scaled_in_place(S.EulerAncestralDiscreteScheduler)(**OLD), 152.3192, 0.1983),
    Case(scaled_in_place(S.EulerAncestralDiscreteScheduler)(**OLD, **V), 108.4439, 0.1412),
    Case(scaled_in_place(S.HeunDiscreteScheduler)(**OLD), 0.1233, 0.0002),
    Case(scaled_in_place(S.KDPM2DiscreteScheduler)(**OLD), 20.4125, 0.0266),
    Case(scaled_in_place(S.KDPM2AncestralDiscreteScheduler)(**OLD), 13979.9433, 18.2030),
    Case(scaled_in_place(S.LMSDiscreteScheduler)(**OLD), 1006.388, 1.31),
    Case(scaled_in_place(S.LMSDiscreteScheduler)(**OLD, use_karras_sigmas=True), 3812.9927, 4.9648),
]


def requests(case: Case) -> list[Request]:
    table = compile_scheduler(case.scheduler, case.steps, begin=case.begin or 0, **case.told)
    draws = torch.Generator().manual_seed(0)
    first = ASCENDING if case.begin is None else DESCENDING
    noise = torch.stack([first, *(torch.zeros(4, 3, 8, 8) for _ in range(len(table)))])
    for k in range(len(table)):
        if (table.C[k] != 0).any():
            noise[1 + k] = torch.randn(4, 3, 8, 8, generator=draws)
    init = ASCENDING if case.begin is not None else [None] * 4
    return [Request(0, table, noise=noise[:, i], init=init[i]) for i in range(4)]


@pytest.fixture(scope="module")
def samples() -> Tensor:
    engine = Engine(
        lambda x, t, label: x * (t / (t + 1)).view(-1, 1, 1, 1), (3, 8, 8), ClosedForms(linear(), "eps"), rows=176
    )
    asked = [request for case in CASES for request in requests(case)]
    return engine.sample(asked).view(len(CASES), 4, 3, 8, 8)


@pytest.mark.parametrize("i", range(len(CASES)), ids=lambda i: f"{type(CASES[i].scheduler).__name__}-{CASES[i].mean}")
def test_the_published_figures_are_met(i: int, samples: Tensor) -> None:
    """Within what those tests allow: 0.01 of the sum, 0.001 of the mean."""
    case, x = CASES[i], samples[i].abs()
    if case.total is not None:
        assert x.sum().item() == pytest.approx(case.total, abs=1e-2)
    assert x.mean().item() == pytest.approx(case.mean, abs=1e-3)
