import pytest
import torch
from diffusers import DDPMScheduler

from generative.diffusion import schedule


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (schedule.linear(), DDPMScheduler()),
        (
            schedule.scaled_linear(),
            DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        ),
        (schedule.cosine(), DDPMScheduler(beta_schedule="squaredcos_cap_v2")),
    ],
    ids=["linear", "scaled-linear", "cosine"],
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
