"""The denoising objective: its value for a denoiser that is known, and what each sample's loss depends on."""

from typing import Any

import pytest
import torch
from torch import Tensor

from generative.diffusion.noise.continuous import EDM, Flow, logit_normal
from generative.diffusion.noise.denoiser import Prediction, column, input_scale, target
from generative.diffusion.noise.schedule import Schedule, cosine, linear, linear_zero_snr
from generative.diffusion.training.objective import DDPM
from generative.train import Losses
from lab import streams

FEW = linear(50, 0.002, 0.2)


class Model(torch.nn.Module):
    """A plain function as a module."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return self.network(x, t, label)


def loss(objective: Any, network: Any, batch: dict[str, Tensor], key: Tensor) -> Losses:
    return objective.loss(Model(network), batch, key)


def keys(n: int) -> Tensor:
    return streams.bits(torch.tensor(streams.derive(0, "test")), torch.arange(n))


@pytest.mark.parametrize(
    ("schedule", "prediction", "weight"),
    [
        (FEW, "eps", "uniform"),
        (FEW, "x0", "uniform"),
        (FEW, "v", "uniform"),
        (FEW, "v", "min-snr"),
        (FEW, "eps", "p2"),
        (EDM(), "edm", "uniform"),
        (EDM(), "edm", "edm"),
        (EDM(), "eps", "min-snr"),
        (Flow(), "flow", "uniform"),
        (Flow(logit_normal, shift=2.0), "flow", "uniform"),
        (Flow(), "v", "p2"),
    ],
)
def test_the_loss_of_the_exact_gaussian_denoiser_is_its_posterior_variance(
    schedule: Schedule, prediction: Prediction, weight: Any
) -> None:
    """x_0 ~ N(0, 1/4): E[x_0 | x] errs with variance 1 / (4 + SNR), which the weights multiply; mean over levels.

    The levels' mean is by quadrature over 100,000 quantiles, the weights by their formulas on the error of x_0.
    """
    middle = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    alpha, sigma, _ = schedule.draw(middle)
    snr = (alpha / sigma) ** 2
    factor = {
        "uniform": {
            "eps": snr,
            "x0": torch.ones_like(snr),
            "v": (alpha**2 + sigma**2) ** 2 / sigma**2,
            "flow": (alpha + sigma) ** 2 / sigma**2,
            "edm": 4 + snr,
        }[prediction],
        "min-snr": snr.clamp(max=5),
        "p2": snr / (1 + snr),
        "edm": 4 + snr,
    }[weight]
    expected = (factor / (4 + snr)).mean().item()
    n = 200_000
    x0 = 0.5 * torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    objective = DDPM(schedule, prediction, weight=weight)
    level = objective.noised({"image": x0}, keys(n)).level

    def exact(seen: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        alpha, sigma, scale = (
            column(value, seen) for value in (*level[:2], input_scale(prediction, level.alpha, level.sigma))
        )
        x = seen / scale
        estimate = alpha / 4 / (alpha**2 / 4 + sigma**2) * x
        return target(prediction, alpha, sigma, estimate, (x - alpha * estimate) / sigma)

    value = loss(objective, exact, {"image": x0}, keys(n)).value
    assert value.shape == (n,)
    error = value.std().item() / n**0.5
    assert value.mean().item() == pytest.approx(expected, abs=4 * error)


def test_a_loss_depends_on_its_own_sample_and_key_alone() -> None:
    objective = DDPM(cosine(), "v", null=10, weight="min-snr")
    draws = torch.Generator().manual_seed(0)
    batch = {"image": torch.randn(6, 1, 8, 8, generator=draws), "label": torch.arange(6)}
    key = streams.bits(torch.tensor(7), torch.arange(6))

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        return torch.sin(x + t[:, None, None, None] / 100 + label[:, None, None, None])

    whole = loss(objective, network, batch, key).value
    order = torch.tensor([4, 1, 3])
    part = loss(objective, network, {name: tensor[order] for name, tensor in batch.items()}, key[order]).value
    torch.testing.assert_close(part, whole[order], rtol=1e-6, atol=0)


def test_timesteps_are_uniform_and_the_share_of_null_labels_is_as_asked() -> None:
    n, seen = 40_000, {}

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        seen.update(t=t, label=label)
        return x

    key = streams.bits(torch.tensor(3), torch.arange(n))
    batch = {"image": torch.zeros(n, 1), "label": torch.full((n,), 4)}
    loss(DDPM(cosine(20), "eps", null=10, dropout=0.25), network, batch, key)
    counts = torch.bincount(seen["t"].long(), minlength=20)
    assert len(counts) == 20
    assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 45  # chi-square of 19 degrees, p = 0.0007
    assert (seen["label"] == 10).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert set(seen["label"].tolist()) == {4, 10}
    loss(DDPM(cosine(20), "eps"), network, batch, key)
    assert seen["label"] is None


def test_eps_is_refused_where_the_noisiest_level_holds_no_data() -> None:
    with pytest.raises(ValueError, match="'eps' determines no x0 where alpha is 0"):
        DDPM(linear_zero_snr(), "eps")
    DDPM(linear_zero_snr(), "v")


@pytest.mark.parametrize(("schedule", "prediction"), [(EDM(), "edm"), (Flow(), "v"), (Flow(logit_normal), "eps")])
def test_the_least_draw_of_a_stream_is_at_a_finite_level(schedule: Schedule, prediction: Prediction) -> None:
    key = torch.tensor([-streams.GOLDEN])  # whose first draw is mix(0) = 0
    assert streams.uniform(key, 0).item() == 0
    objective = DDPM(schedule, prediction, weight="min-snr")
    level = objective.noised({"image": torch.ones(1, 1)}, key).level
    assert level.sigma > 0
    assert torch.isfinite(torch.stack(level)).all()
    assert torch.isfinite(loss(objective, lambda x, t, label: x, {"image": torch.ones(1, 1)}, key).value).all()
