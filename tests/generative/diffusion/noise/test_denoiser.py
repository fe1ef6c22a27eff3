"""Predictions and loss weights, each against its definition on x_0 and its published formula."""

from typing import Any, get_args

import diffusers
import pytest
import torch
from torch import Tensor

from generative.diffusion.noise.continuous import EDM, Flow
from generative.diffusion.noise.denoiser import (
    MIXTURES,
    SIGMA_DATA,
    Denoiser,
    Prediction,
    edm_mixture,
    input_scale,
    target,
    x0_coefficients,
)
from generative.diffusion.noise.schedule import Level, Schedule, cosine
from generative.diffusion.training.weight import WEIGHTS, on_output

PREDICTIONS: list[Prediction] = list(get_args(Prediction))
SCHEDULES: dict[str, Schedule] = {"cosine": cosine(), "edm": EDM(), "flow": Flow()}
U = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)


def data(n: int = 7) -> tuple[Tensor, Tensor]:
    x0, eps = torch.randn(2, n, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x0, eps


def columns(level: Level) -> tuple[Tensor, Tensor]:
    return level.alpha.view(-1, 1, 1, 1), level.sigma.view(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", list(SCHEDULES.values()), ids=list(SCHEDULES))
def test_the_denoiser_finds_the_data_from_a_perfect_answer(prediction: Prediction, schedule: Schedule) -> None:
    """The answers as their papers define them; the network is shown the scaled sample, and told of the level."""
    (x0, eps), level = data(), schedule.draw(U)
    alpha, sigma = columns(level)
    x, variance = alpha * x0 + sigma * eps, alpha**2 * SIGMA_DATA**2 + sigma**2
    answers = {
        "eps": eps,
        "x0": x0,
        "v": alpha * eps - sigma * x0,
        "flow": eps - x0,
        "edm": (x0 - alpha * SIGMA_DATA**2 / variance * x) / (sigma * SIGMA_DATA / variance.sqrt()),
    }
    torch.testing.assert_close(target(prediction, alpha, sigma, x0, eps), answers[prediction])
    shown: dict[str, Tensor] = {}

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        shown.update(x=x, t=t)
        return answers[prediction]

    torch.testing.assert_close(Denoiser(network, prediction)(x, level), x0)
    torch.testing.assert_close(shown["x"], x / variance.sqrt() if prediction == "edm" else x)
    assert torch.equal(shown["t"], level.told)


def test_edm_is_diffusers_preconditioning() -> None:
    sigma = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0], dtype=torch.float64)
    p, q = x0_coefficients("edm", torch.ones_like(sigma), sigma)
    theirs: Any = diffusers.EDMEulerScheduler(sigma_data=SIGMA_DATA)
    for k in range(5):
        x, output = torch.tensor([1.7]).double(), torch.tensor([-0.6]).double()
        expected = theirs.precondition_outputs(x, output, sigma[k])
        torch.testing.assert_close(p[k] * x + q[k] * output, expected)
        scale = input_scale("edm", torch.ones(1).double(), sigma[k : k + 1])
        torch.testing.assert_close(scale * x, theirs.precondition_inputs(x, sigma[k]))


def test_v_is_edm_turned_around_for_data_of_unit_variance() -> None:
    level = cosine().draw(U)
    f, g = edm_mixture(level.alpha, level.sigma, data=1.0)
    v = MIXTURES["v"](level.alpha, level.sigma)
    torch.testing.assert_close((-f, -g), v)


def test_edm_targets_have_unit_variance_for_data_as_it_supposes() -> None:
    """E[F^2] = f^2 data^2 + g^2 and E[(c_in x)^2], at every level (Karras et al. 2022, app. B.6)."""
    for schedule in SCHEDULES.values():
        level = schedule.draw(U)
        f, g = edm_mixture(level.alpha, level.sigma)
        torch.testing.assert_close(f**2 * SIGMA_DATA**2 + g**2, torch.ones(7).double())
        seen = input_scale("edm", level.alpha, level.sigma) ** 2 * (level.alpha**2 * SIGMA_DATA**2 + level.sigma**2)
        torch.testing.assert_close(seen, torch.ones(7).double())


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", list(SCHEDULES.values()), ids=list(SCHEDULES))
@pytest.mark.parametrize("weight", list(WEIGHTS))
def test_a_weight_counts_the_error_of_the_data_whatever_the_network_says(
    prediction: Prediction, schedule: Schedule, weight: Any
) -> None:
    """A wrong answer's weighed squared error is w times the squared error of the x_0 that follows from it."""
    (x0, eps), level = data(), schedule.draw(U)
    alpha, sigma = columns(level)
    wrong = torch.randn(7, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    estimate = Denoiser(lambda *_: wrong, prediction)(alpha * x0 + sigma * eps, level)
    snr = (level.alpha / level.sigma) ** 2
    w = {
        "min-snr": torch.minimum(snr, torch.full_like(snr, 5)),
        "p2": snr / (1 + snr),
        "edm": ((sigma / alpha) ** 2 + 0.25).flatten() / (sigma / alpha * 0.5).flatten() ** 2,
    }[weight]
    error = (wrong - target(prediction, alpha, sigma, x0, eps)).square().sum((1, 2, 3))
    found = on_output(weight, prediction, level) * error
    torch.testing.assert_close(found, w * (estimate - x0).square().sum((1, 2, 3)))


def test_weights_are_the_published_ones_on_the_published_predictions() -> None:
    """Hang et al. 2023, sec. 3.4: min(SNR, 5)/SNR for eps, /(SNR + 1) for v. Choi et al. 2022: 1/(1 + SNR) for eps."""
    level = cosine().draw(U)
    snr = (level.alpha / level.sigma) ** 2
    least = snr.clamp(max=5)
    torch.testing.assert_close(on_output("min-snr", "eps", level), least / snr)
    torch.testing.assert_close(on_output("min-snr", "v", level), least / (snr + 1))
    torch.testing.assert_close(on_output("min-snr", "x0", level), least)
    torch.testing.assert_close(on_output("p2", "eps", level), 1 / (1 + snr))
    for schedule in SCHEDULES.values():
        torch.testing.assert_close(on_output("edm", "edm", schedule.draw(U)), torch.ones(7).double())
        torch.testing.assert_close(on_output("uniform", "flow", schedule.draw(U)), torch.ones(7).double())
