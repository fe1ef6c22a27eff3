"""Schedules against diffusers' tables, their formulas one number at a time, and the densities they are to draw from."""

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from scipy import integrate, stats

from generative.diffusion.noise import schedule
from generative.diffusion.noise.continuous import CONTINUOUS, EDM, Flow, logit_normal
from generative.diffusion.training.objective import HALF


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (schedule.linear(), DDPMScheduler()),
        (
            schedule.scaled_linear(),
            DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        ),
        (schedule.cosine(), DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
        (schedule.linear_zero_snr(), DDPMScheduler(rescale_betas_zero_snr=True)),
        (
            schedule.scaled_linear_zero_snr(),
            DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear", rescale_betas_zero_snr=True),
        ),
    ],
    ids=["linear", "scaled-linear", "cosine", "linear-zero-snr", "scaled-linear-zero-snr"],
)
def test_alpha_bar_is_that_of_diffusers(ours: schedule.NoiseSchedule, theirs: DDPMScheduler) -> None:
    torch.testing.assert_close((ours.alphas**2).float(), theirs.alphas_cumprod, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", list(schedule.SCHEDULES))
def test_variance_is_preserved_and_the_signal_only_falls(name: str) -> None:
    s = schedule.SCHEDULES[name](1000)
    torch.testing.assert_close(s.alphas**2 + s.sigmas**2, torch.ones(1000, dtype=torch.float64))
    t = torch.arange(1000)
    assert (s.snr(t).diff() < 0).all()
    torch.testing.assert_close(s.half_log_snr(t), 0.5 * s.snr(t).log())


def test_linear_is_the_product_of_its_steps() -> None:
    s = schedule.linear(4, 0.1, 0.4)
    assert (s.alphas**2).tolist() == pytest.approx([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7, 0.9 * 0.8 * 0.7 * 0.6])


def test_sigmoid_is_its_formula() -> None:
    """gamma(u) of Chen 2023, alg. 1, one u at a time."""

    def f(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    found = schedule.sigmoid(40).alphas ** 2
    for k in range(39):
        u = (k + 1) / 40
        assert found[k].item() == pytest.approx((f(3) - f(6 * u - 3)) / (f(3) - f(-3)))
    assert found[39].item() == pytest.approx(1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine", "sigmoid"])
def test_nothing_is_left_of_the_data_at_zero_terminal_snr_and_the_first_step_stays(name: str) -> None:
    before = schedule.SCHEDULES[name](200)
    after = schedule.zero_terminal_snr(before)
    assert after.alphas[-1] == 0
    assert after.sigmas[-1] == 1
    assert after.alphas[0].item() == pytest.approx(before.alphas[0].item())
    ratio = after.alphas.diff() / before.alphas.diff()  # shifted and stretched, nothing else
    torch.testing.assert_close(ratio, ratio[:1].expand(199))


def test_a_table_draws_every_timestep_alike() -> None:
    found = schedule.linear(8)
    u = torch.arange(2**12, dtype=torch.float64) / 2**12 + HALF
    level = found.draw(u)
    assert torch.bincount(level.told.long()).tolist() == [2**9] * 8
    assert torch.equal(level.alpha, found.alphas[level.told.long()])
    assert torch.equal(level.sigma, found.sigmas[level.told.long()])
    edge = torch.tensor([HALF, 1 - HALF], dtype=torch.float64)  # the least and the largest that are drawn
    assert found.draw(edge).told.tolist() == [0, 7]
    for make in CONTINUOUS.values():
        assert all(torch.isfinite(value).all() and (value != 0).all() for value in make().draw(edge)[:2])


def test_edm_draws_a_log_normal_sigma_and_tells_a_quarter_of_its_log() -> None:
    z = np.array([-3.0, -1.0, 0.0, 0.5, 2.0])
    level = EDM().draw(torch.from_numpy(stats.norm.cdf(z)))
    np.testing.assert_allclose(level.sigma.numpy(), np.exp(-1.2 + 1.2 * z), rtol=1e-9)
    np.testing.assert_allclose(level.told.numpy(), np.log(level.sigma.numpy()) / 4, rtol=1e-9)
    assert (level.alpha == 1).all()


def test_karras_sigmas_are_their_formula() -> None:
    levels = EDM().levels(18)
    assert levels.initial_scale == pytest.approx(80.0)
    expected = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert levels.sigmas.tolist() == pytest.approx([*expected, 0.0])
    assert levels.alphas.tolist() == [1.0] * 19


@pytest.mark.parametrize("t", [0.03, 0.3, 0.5, 0.9])
def test_logit_normal_levels_have_the_published_density(t: float) -> None:
    """Esser et al. 2024, eq. 19, integrated numerically up to t."""
    mean, std = -0.4, 0.8

    def density(x: float) -> float:
        logit = math.log(x / (1 - x))
        return math.exp(-((logit - mean) ** 2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi) * x * (1 - x))

    u = torch.tensor([integrate.quad(density, 0, t)[0]], dtype=torch.float64)
    level = Flow(lambda v: logit_normal(v, mean, std)).draw(u)
    assert level.sigma.item() == pytest.approx(t, rel=1e-6)
    assert level.alpha.item() == pytest.approx(1 - t, rel=1e-6)
    assert level.told.item() == pytest.approx(1000 * t, rel=1e-6)


def test_a_shift_divides_the_signal_to_noise_ratio_by_its_square() -> None:
    """As if the image had shift times the pixels a side (Esser et al. 2024, sec. 5.3.2); in training and solving."""
    u = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    plain, shifted = Flow().draw(u), Flow(shift=3.0).draw(u)
    torch.testing.assert_close(shifted.alpha / shifted.sigma, plain.alpha / plain.sigma / 3)
    a, b = Flow().levels(10), Flow(shift=3.0).levels(10)
    torch.testing.assert_close(b.alphas[:-1] / b.sigmas[:-1], a.alphas[:-1] / a.sigmas[:-1] / 3)
    assert a.sigmas.tolist() == pytest.approx([1 - k / 10 for k in range(11)])
