"""The power-function average: its weights unrolled, its width measured, and a run that is cut in two."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from generative.average import WIDEST, Average, decay, exponent
from generative.train import Batch, Losses, TensorData, TrainConfig, Trainer


@pytest.mark.parametrize("width", [0.01, 0.05, 0.1, 0.2, WIDEST])
def test_the_width_is_the_standard_deviation_of_what_is_remembered(width: float) -> None:
    """Weights of 20,000 updates, unrolled one after another; their spread in i/n, without any formula for it."""
    n, gamma = 20_000, exponent(width)
    weights = np.zeros(n)
    for i in range(n):
        beta = decay(i + 1, gamma)
        weights[: i + 1] *= beta
        weights[i] += 1 - beta
    place = (np.arange(n) + 0.5) / n
    mean = weights @ place
    assert weights.sum() == pytest.approx(1)
    assert (weights @ (place - mean) ** 2) ** 0.5 == pytest.approx(width, rel=1e-3)
    np.testing.assert_allclose(weights[n // 2] / weights[n // 4], 2**gamma, rtol=1e-2)  # the power function


def test_published_exponents() -> None:
    """Karras et al. 2024, sec. 3.1: sigma_rel of 0.05 and 0.10 are gamma of 16.97 and 6.94."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)


@pytest.mark.parametrize("width", [-0.1, 0.0, 0.3, 0.995])
def test_a_width_that_no_average_has(width: float) -> None:
    with pytest.raises(ValueError, match=f"width is {width}; expected more than 0 and at most 0.28"):
        Average(nn.Linear(1, 1), width)


class Fit:
    """A linear regression, one squared error a sample."""

    def loss(self, model: nn.Module, batch: Batch, key: Tensor) -> Losses:
        return Losses((model(batch["x"]) - batch["y"]).square().mean(1))


def trainer(ema: float) -> Trainer:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(50, 3, generator=draws)
    data = TensorData({"x": x, "y": x @ torch.randn(3, 2, generator=draws)})
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=draws))
    return Trainer(model, Fit(), data, TrainConfig(steps=40, batch_size=8, learning_rate=0.05, ema=ema), seed=0)


def test_a_trainer_keeps_the_weighted_sum_of_all_its_weights() -> None:
    """Update i weighs (i^(g+1) - (i-1)^(g+1)) / n^(g+1); buffers are the last ones."""
    run, seen = trainer(0.1), []
    for _ in run.run():
        seen.append([p.detach().double().clone() for p in run.bare.parameters()])
    g = exponent(0.1)
    i = torch.arange(1, 41, dtype=torch.float64)
    weights = (i ** (g + 1) - (i - 1) ** (g + 1)) / 40 ** (g + 1)
    for k, average in enumerate(run.result.parameters()):
        expected = (torch.stack([each[k] for each in seen]).flatten(1) * weights[:, None]).sum(0)
        torch.testing.assert_close(average.double().flatten(), expected, rtol=1e-5, atol=1e-6)
    for kept, new in zip(run.result.buffers(), run.bare.buffers(), strict=True):
        assert torch.equal(kept, new)
    assert run.result is not run.bare


def test_an_average_survives_being_killed_bit_for_bit() -> None:
    whole, first, second = trainer(0.1), trainer(0.1), trainer(0.1)
    list(whole.run())
    list(first.run(17))
    second.load_state_dict(first.state_dict())
    list(second.run())
    for a, b in zip(whole.result.state_dict().values(), second.result.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert trainer(0.0).average is None
    assert "average" not in trainer(0.0).state_dict()
