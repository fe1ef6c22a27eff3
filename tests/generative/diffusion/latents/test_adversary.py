"""The two players' gradients by other means, that they play, and that a run with them can be killed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from backbones.initialise import build
from backbones.shape import ShapeError
from generative.diffusion.latents.adversary import Adversarial, PatchDiscriminator, Players, verdict_loss
from generative.diffusion.latents.autoencoder import AutoencoderConfig, Coder, Reconstruction, autoencoder
from generative.train import TensorData, TrainConfig, Trainer
from lab import streams


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keys(count: int) -> Tensor:
    return streams.bits(torch.tensor(5), torch.arange(count))


def texture(count: int) -> Tensor:
    """Every pixel -1/2 or 1/2 by itself: [count, 1, 8, 8], 64 bits of which a small latent holds few."""
    return torch.randint(0, 2, (count, 1, 8, 8), generator=generator(0)).float() - 0.5


def players(width: int = 4) -> Players:
    draws = generator(1)
    coder = Coder(autoencoder(AutoencoderConfig(1, 8, 1, width=width), draws))
    return Players(coder, build(lambda: PatchDiscriminator(1, 2 * width), draws))


def gradients(model: torch.nn.Module, value: Tensor) -> dict[str, Tensor]:
    """Of the mean over the batch, by name; zeros where there is none."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(value.mean(), list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(named[name]) if g is None else g for name, g in zip(named, found, strict=True)}


@pytest.mark.parametrize(("halvings", "pixels"), [(1, 16), (2, 34), (3, 70)])
def test_a_verdict_sees_a_patch_of_the_stated_size(halvings: int, pixels: int) -> None:
    """Isola et al. 2017, appendix 6.1.2: 16 x 16 and 70 x 70."""
    network = build(lambda: PatchDiscriminator(1, 2, halvings), generator(0))
    image = torch.randn(1, 1, 128, 128, generator=generator(1)).requires_grad_()
    verdicts = network(image)
    middle = verdicts.shape[1] // 2
    (seen,) = torch.autograd.grad(verdicts[0, middle, middle], image)
    rows = seen[0, 0].abs().sum(1).nonzero()
    assert (rows.max() - rows.min() + 1).item() == pixels


def test_images_that_no_verdict_fits_are_refused() -> None:
    network = PatchDiscriminator(3, 2, halvings=2)
    assert network(torch.zeros(1, 3, 12, 14)).shape == (1, 1, 1)
    for shape in ((1, 3, 11, 12), (1, 1, 16, 16)):
        with pytest.raises(ShapeError, match=r"expected \[B, 3, 12 \.\.\., 12 \.\.\.\]"):
            network(torch.zeros(shape))


def test_the_hinge_loss_of_a_few_verdicts_done_by_hand() -> None:
    real = torch.tensor([[[2.0, 0.5]], [[-1.0, 0.0]]])
    fake = torch.tensor([[[-3.0, 0.0]], [[1.0, -1.0]]])
    # (0 + 1/2) / 2 + (0 + 1) / 2 = 3/4 and (2 + 1) / 2 + (2 + 0) / 2 = 5/2, halved
    torch.testing.assert_close(verdict_loss(real, fake), torch.tensor([0.375, 1.25]))


def test_each_player_learns_from_its_own_loss_alone() -> None:
    """The gradient of the sum is, for the autoencoder, that of its losses with another's constant discriminator; for
    the discriminator, that of the hinge loss on images that somebody else made. Both once more by differences."""
    model = players().double()
    image, key = texture(6).double(), keys(6)
    objective = Adversarial(Reconstruction("l2"), weight=0.3)
    found = gradients(model, objective.loss(model, {"image": image}, key).value)

    frozen = copy.deepcopy(model.discriminator).requires_grad_(False)
    made = model.coder(image, key)
    own = objective.reconstruction.of(image, made).value - 0.3 * frozen(made.image).flatten(1).mean(1)
    for name, expected in gradients(model.coder, own).items():
        torch.testing.assert_close(found[f"coder.{name}"], expected, rtol=1e-9, atol=1e-12)
    told = verdict_loss(model.discriminator(image), model.discriminator(made.image.detach()))
    for name, expected in gradients(model.discriminator, told).items():
        torch.testing.assert_close(found[f"discriminator.{name}"], expected, rtol=1e-9, atol=1e-12)
        assert expected.any() or name == "layers.4.bias"  # the last bias: data and reconstructions cancel

    def generated() -> float:
        with torch.no_grad():
            coded = model.coder(image, key)
            return (
                (objective.reconstruction.of(image, coded).value - 0.3 * frozen(coded.image).mean((1, 2))).mean().item()
            )

    weight, step = model.coder.autoencoder.decoder.conv_out.weight, 1e-5
    for place in [(0, 0, 1, 1), (0, 3, 0, 2)]:
        ends = []
        for sign in (1, -1):
            weight.data[place] += sign * step
            ends.append(generated())
            weight.data[place] -= sign * step
        difference = (ends[0] - ends[1]) / (2 * step)
        name = "coder.autoencoder.decoder.conv_out.weight"
        assert found[name][place].item() == pytest.approx(difference, rel=1e-5)


def test_before_it_joins_the_adversary_neither_learns_nor_is_heard() -> None:
    """However often it is asked: `test_course` has when it joins."""
    model, image, key = players(), texture(4), keys(4)
    alone = gradients(model.coder, Reconstruction("l2").loss(model.coder, {"image": image}, key).value)
    for joined in (False, True, False, False, True):
        objective = Adversarial(Reconstruction("l2"), joined=joined)
        found = gradients(model, objective.loss(model, {"image": image}, key).value)
        same = all(torch.equal(found[f"coder.{name}"], g) for name, g in alone.items())
        still = all(not g.any() for name, g in found.items() if name.startswith("discriminator"))
        assert same == still == (not joined)


def test_the_adversary_brings_back_the_contrast_that_squared_error_takes() -> None:
    """Pixels of deviation 1/2 that the latents cannot hold: the mean is the best guess, and a blur of contrast 0.2.

    Nobody minds for 60 rounds, and the adversary learns to tell it from the data without fail. Then the autoencoder
    minds: the contrast is that of the data, give or take, and the adversary as good as a coin. Both swing, so they are
    averaged over the last 60 rounds.
    """
    data, model = texture(256), players(width=8)
    config = TrainConfig(steps=140, batch_size=8, learning_rate=1e-3, warmup=10, final_rate=1.0)
    trainer = Trainer(model, Adversarial(Reconstruction("l2"), 0.0), TensorData({"image": data}), config, seed=0)
    told, contrast = [], {}
    for step, metrics in trainer.run():
        told.append(metrics["told_apart"].item())
        if step % 10 == 0:
            with torch.no_grad():
                contrast[step] = model.coder(data, keys(256)).image.std((1, 2, 3)).mean().item()
        if step == 60:
            trainer.objective = Adversarial(Reconstruction("l2"), 0.1)
    assert sum(told[40:60]) / 20 > 0.9
    assert contrast[60] < 0.25
    assert 0.2 < sum(told[80:]) / 60 < 0.7
    assert 0.3 < sum(contrast[step] for step in range(90, 150, 10)) / 6 < 0.65


def test_a_killed_run_goes_on_bit_for_bit() -> None:
    data, config = TensorData({"image": texture(16)}), TrainConfig(steps=6, batch_size=4, ema=0.1)

    def trainer() -> Trainer:
        return Trainer(players(), Adversarial(), data, config, seed=2)

    whole, again, killed, resumed = (trainer() for _ in range(4))
    list(whole.run())
    list(again.run())
    list(killed.run(until=2))
    state = copy.deepcopy(killed.state_dict())
    list(resumed.run(until=1))  # what it holds must not matter
    resumed.load_state_dict(state)
    list(resumed.run())
    for other in (again, resumed):
        for name, weight in whole.bare.state_dict().items():
            assert torch.equal(weight, other.bare.state_dict()[name]), name
        for name, weight in whole.result.state_dict().items():
            assert torch.equal(weight, other.result.state_dict()[name]), name
