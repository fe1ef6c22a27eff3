import pytest
import torch
from torch import Tensor

from generative.diffusion.denoiser import Denoiser, Prediction
from generative.diffusion.objective import DDPM
from generative.diffusion.schedule import cosine, linear
from generative.train import Losses
from lab import streams

KINDS: list[Prediction] = ["eps", "x0", "v"]


def loss(objective: DDPM, network: object, batch: dict[str, Tensor], key: Tensor) -> Losses:
    class Model(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            return network(x, t, label)  # type: ignore[operator]  # a plain function

    return objective.loss(Model(), batch, key)


@pytest.mark.parametrize("prediction", KINDS)
def test_the_loss_of_the_exact_gaussian_denoiser_is_its_posterior_variance(prediction: Prediction) -> None:
    """x_0 ~ N(0, 1/4): E[x_0 | x_t] errs with variance 1 / (4 + SNR); weighed SNR, 1 or SNR + 1; mean over t."""
    schedule = linear(50, 0.002, 0.2)
    t = torch.arange(50)
    variance = 1 / (4 + schedule.snr(t))
    weight = {"eps": schedule.snr(t), "x0": torch.ones(50).double(), "v": schedule.snr(t) + 1}[prediction]
    expected = (weight * variance).mean().item()
    n = 200_000
    x0 = 0.5 * torch.randn(n, 2, generator=torch.Generator().manual_seed(0))

    def exact(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        alpha, sigma = (table(t.long()).float()[:, None] for table in (schedule.alpha, schedule.sigma))
        estimate = alpha / 4 / (alpha**2 / 4 + sigma**2) * x
        eps = (x - alpha * estimate) / sigma
        return {"eps": eps, "x0": estimate, "v": alpha * eps - sigma * estimate}[prediction]

    key = streams.bits(torch.tensor(streams.derive(0, "test")), torch.arange(n))
    value = loss(DDPM(schedule, prediction), exact, {"image": x0}, key).value
    assert value.shape == (n,)
    error = value.std().item() / n**0.5
    assert value.mean().item() == pytest.approx(expected, abs=4 * error)


def test_a_loss_depends_on_its_own_sample_and_key_alone() -> None:
    objective = DDPM(cosine(), "v", null=10)
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


@pytest.mark.parametrize("prediction", KINDS)
def test_the_denoiser_finds_the_data_from_a_perfect_answer(prediction: Prediction) -> None:
    schedule, draws = cosine(), torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 5, 1, 4, 4, generator=draws, dtype=torch.float64)
    t = torch.tensor([0, 10, 300, 600, 900])
    alpha, sigma = (table(t)[:, None, None, None] for table in (schedule.alpha, schedule.sigma))
    answer = {"eps": eps, "x0": x0, "v": alpha * eps - sigma * x0}[prediction]
    denoiser = Denoiser(lambda x, t, label: answer, schedule, prediction)
    torch.testing.assert_close(denoiser(alpha * x0 + sigma * eps, t), x0)
