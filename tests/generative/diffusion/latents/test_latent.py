"""Standardised latents: moments by drawing, equal images, and the same in diffusers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from generative.diffusion.latents.autoencoder import AutoencoderConfig, autoencoder
from generative.diffusion.latents.latent import OWN, Latent, Statistics, decode, encoded, standardise, statistics
from generative.train import Batch, Losses
from lab import streams

TINY = AutoencoderConfig(size=8, latent_channels=3, width=4)
IMAGES = torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(9)) * 2 - 1


def drawn(seed: int = 0) -> AutoencoderKL:
    """Untrained, with biases that move the channels apart."""
    draws = torch.Generator().manual_seed(seed)
    network = autoencoder(TINY, draws).double()
    with torch.no_grad():
        for end in (network.quant_conv, network.post_quant_conv):
            end.bias.add_(torch.randn(end.bias.shape, generator=draws, dtype=torch.float64))
        network.quant_conv.bias[3:] += torch.tensor([5.0, 6.0, 3.0])  # ln variances near 0: worth counting
    return network


def test_statistics_are_the_moments_of_drawn_latents() -> None:
    network = drawn()
    found = statistics(network, IMAGES.double(), batch=7)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        posterior = network.encode(IMAGES.double()).latent_dist
        z = torch.stack([posterior.sample(draws) for _ in range(400)])  # [400, 40, 3, 4, 4]
    torch.testing.assert_close(z.mean((0, 1, 3, 4)), found.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(z.std((0, 1, 3, 4)), found.deviation, rtol=0.02, atol=0)


def test_standardised_latents_have_mean_0_and_deviation_1_and_decode_to_the_same_images(tmp_path: Path) -> None:
    before, network = drawn(), drawn()
    found = statistics(network, IMAGES.double())
    standardise(network, found)
    again = statistics(network, IMAGES.double())
    torch.testing.assert_close(again.mean, torch.zeros(3).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(again.deviation, torch.ones(3).double(), rtol=1e-12, atol=0)
    z = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    m, s = (value[:, None, None] for value in found)
    torch.testing.assert_close(decode(network, z, batch=2), decode(before, s * z + m), rtol=1e-10, atol=1e-10)
    old, new = (encoded(n, IMAGES.double(), batch=9) for n in (before, network))
    torch.testing.assert_close(new["mean"], (old["mean"] - m) / s, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(new["logvar"].exp(), old["logvar"].exp() / s**2, rtol=1e-10, atol=1e-10)
    network.float().save_pretrained(tmp_path)
    stock = AutoencoderKL.from_pretrained(tmp_path)
    assert stock.config.scaling_factor == 1
    assert stock.config.shift_factor is None
    with torch.no_grad():
        assert torch.equal(stock.decode(z.float() / stock.config.scaling_factor).sample, decode(network, z.float()))
        assert torch.equal(stock.encode(IMAGES).latent_dist.mean, network.encode(IMAGES).latent_dist.mean)


def test_what_cannot_be_standardised_is_refused() -> None:
    with pytest.raises(ValueError, match=r"deviations of the latents are \[1.0, 0.0, 1.0\]"):
        standardise(drawn(), Statistics(torch.zeros(3), torch.tensor([1.0, 0.0, 1.0])))
    network = drawn()
    network.quant_conv = None
    with pytest.raises(ValueError, match="use_quant_conv=True"):
        standardise(network, Statistics(torch.zeros(3), torch.ones(3)))


class Seen:
    """An objective that keeps what it is given."""

    def loss(self, model: nn.Module, batch: Batch, key: Tensor) -> Losses:
        self.batch, self.key = batch, key
        return Losses(batch["image"].flatten(1).mean(1))


def test_an_objective_on_latents_sees_draws_from_the_posteriors_and_all_else_as_it_was() -> None:
    seen, count = Seen(), 20_000
    batch = {
        "mean": torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(count, 2, 1, 1),
        "logvar": torch.tensor([0.0, -2.0]).view(1, 2, 1, 1).expand(count, 2, 1, 1),
        "label": torch.arange(count),
    }
    key = streams.bits(torch.tensor(1), torch.arange(count))
    Latent(seen).loss(nn.Identity(), batch, key)
    z = seen.batch["image"][:, :, 0, 0]
    torch.testing.assert_close(z.mean(0), torch.tensor([2.0, -1.0]), rtol=0, atol=0.03)  # 4 / sqrt(20,000)
    torch.testing.assert_close(z.std(0), torch.tensor([0.0, -1.0]).exp(), rtol=0.02, atol=0)
    assert torch.equal(seen.batch["label"], batch["label"])
    assert torch.equal(seen.key, key)
    own = torch.stack([streams.normal(streams.bits(key, OWN), i) for i in (0, 1)], 1)
    torch.testing.assert_close(z, torch.tensor([2.0, -1.0]) + torch.tensor([0.0, -1.0]).exp() * own)
    objectives = torch.stack([streams.normal(key, i) for i in range(4)], 1)  # the stream that the objective draws from
    correlation = torch.corrcoef(torch.cat([own, objectives], 1).T)[:2, 2:]
    assert correlation.abs().max() < 0.03
