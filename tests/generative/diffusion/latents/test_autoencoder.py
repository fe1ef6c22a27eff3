"""The autoencoder's loss by other means, and that it learns small scenes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from generative.diffusion.latents.autoencoder import (
    AutoencoderConfig,
    Coded,
    Coder,
    Reconstruction,
    autoencoder,
    groups,
    kl,
)
from generative.train import TensorData, TrainConfig, Trainer
from lab import streams

TINY = AutoencoderConfig(size=8, latent_channels=2, width=4)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keys(count: int) -> Tensor:
    return streams.bits(torch.tensor(5), torch.arange(count))


def scenes(count: int, seed: int) -> Tensor:
    """Two squares of random colours on black: [count, 3, 8, 8] in {-1, 1}."""
    draws, image = generator(seed), torch.full((count, 3, 8, 8), -1.0)
    for one in image:
        for _ in range(2):
            row, column = (4 * torch.randint(0, 2, (2,), generator=draws)).tolist()
            colour = 2 * torch.randint(0, 2, (3,), generator=draws).float() - 1
            one[:, row : row + 4, column : column + 4] = colour[:, None, None]
    return image


def test_the_divergence_is_that_of_torchs_distributions() -> None:
    draws = generator(0)
    mean, logvar = torch.randn(5, 2, 3, 3, generator=draws), torch.randn(5, 2, 3, 3, generator=draws)
    expected = kl_divergence(Normal(mean, (logvar / 2).exp()), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(kl(mean, logvar), expected)


@pytest.mark.parametrize("error", ["l1", "l2"])
def test_the_loss_is_the_error_a_value_and_the_divergence_a_value(error: str) -> None:
    draws = generator(0)
    image, made = torch.randn(2, 4, 3, 8, 8, generator=draws)
    mean, logvar = torch.randn(2, 4, 2, 4, 4, generator=draws)
    losses = Reconstruction(error, kl=0.25).of(image, Coded(mean, logvar, made))  # type: ignore[arg-type]  # a name
    x, y, m, v = (part.numpy() for part in (image, made, mean, logvar.exp()))
    for i in range(4):
        wrong = np.mean(np.abs(x[i] - y[i]) ** (1 if error == "l1" else 2))
        nats = np.sum(v[i] + m[i] ** 2 - 1 - np.log(v[i])) / 2
        assert losses.value[i].item() == pytest.approx(wrong + 0.25 * nats / (3 * 64), rel=1e-5)
        assert losses.metrics["kl"][i].item() == pytest.approx(nats, rel=1e-5)


def test_every_weight_comes_from_the_generator_and_the_global_one_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (autoencoder(TINY, generator(seed)).state_dict() for seed in (3, 3, 4))
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        drawn = weight.ndim > 1 and not name.endswith("conv2.weight")
        assert drawn != torch.equal(weight, other[name]), name


def test_an_untrained_one_keeps_the_variance_and_is_sure_of_its_latents() -> None:
    network = autoencoder(AutoencoderConfig(), generator(0))
    with torch.no_grad():
        posterior = network.encode(torch.randn(16, 3, 16, 16, generator=generator(1))).latent_dist
        decoded = network.decode(torch.randn(16, 4, 8, 8, generator=generator(2))).sample
    for values in (posterior.mean, decoded):
        assert 0.3 < values.square().mean().sqrt() < 1.5  # silu before the last convolution takes some
    assert posterior.logvar.mean().item() == pytest.approx(-6, abs=0.5)


def test_the_noise_of_an_image_is_that_of_its_key_whoever_stands_beside_it() -> None:
    coder = Coder(autoencoder(TINY, generator(0)))
    image, key = torch.rand(6, 3, 8, 8, generator=generator(1)), keys(6)
    with torch.no_grad():
        whole, order = coder(image, key), torch.tensor([4, 1, 3])
        part = coder(image[order], key[order])
        for name in Coded._fields:
            torch.testing.assert_close(getattr(part, name), getattr(whole, name)[order], rtol=1e-4, atol=1e-5)
        same = coder(image[:1].expand(2000, -1, -1, -1), keys(2000))
    z = torch.stack([streams.normal(keys(2000), i) for i in range(32)], 1).view(2000, 2, 4, 4)
    with torch.no_grad():
        drawn = coder.autoencoder.decode(same.mean + (same.logvar / 2).exp() * z).sample
    torch.testing.assert_close(same.image, drawn, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "expected"), [(4, 1), (6, 1), (8, 2), (16, 4), (24, 4), (32, 8), (36, 4), (64, 8)]
)
def test_groups_divide_and_hold_four_channels(channels: int, expected: int) -> None:
    assert groups(channels) == expected


def test_images_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size 18 cannot be halved 2 times: expected a multiple of 4"):
        autoencoder(AutoencoderConfig(size=18, multipliers=(1, 1, 2)), generator(0))


def test_small_scenes_are_learned() -> None:
    """In 100 steps to less than an eighth of the variance of scenes never seen; their grey alone leaves two fifths."""
    train, test = scenes(512, 0), scenes(64, 1)
    grey = test.mean(1, keepdim=True)
    variance = (test - train.mean(0)).square().mean()
    assert (test - grey).square().mean() / variance > 0.4
    network = autoencoder(AutoencoderConfig(size=8, width=16), generator(0))
    config = TrainConfig(steps=100, batch_size=8, learning_rate=2e-3, warmup=10)
    trainer = Trainer(Coder(network), Reconstruction("l2"), TensorData({"image": train}), config, seed=0)
    for _ in trainer.run():
        pass
    with torch.no_grad():
        made = network.decode(network.encode(test).latent_dist.mean).sample
    assert (made - test).square().mean() / variance < 1 / 8
