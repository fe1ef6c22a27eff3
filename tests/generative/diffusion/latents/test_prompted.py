"""Training with prompts: who is shown which, that they are obeyed, and that the network is diffusers' own."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from backbones.convert import folders, unet
from backbones.initialise import build
from generative.diffusion.engine.engine import Engine
from generative.diffusion.engine.request import Request
from generative.diffusion.latents.latent import Latent
from generative.diffusion.latents.prompted import Captioned, Prompted
from generative.diffusion.latents.text import TextConfig, text
from generative.diffusion.model import DiffusionConfig, Subject, network_of
from generative.diffusion.noise.schedule import cosine
from generative.diffusion.solvers.compiler import ClosedForms
from generative.diffusion.training.objective import DDPM
from generative.train import TensorData, TrainConfig, Trainer
from lab import streams

SMALL = TextConfig(merges=20, width=8, layers=1, heads=2)
LIGHT, DARK = "a bright picture", "a dark picture"


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keys(count: int) -> Tensor:
    return streams.bits(torch.tensor(5), torch.arange(count))


class Seen(nn.Module):
    """A model that keeps what it is called with."""

    def forward(self, x: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        self.x, self.t, self.ids = x, t, ids
        return x


def test_a_share_of_the_samples_is_shown_the_empty_prompt_and_nothing_else_changes() -> None:
    count = 20_000
    model, plain = Seen(), Seen()
    batch = {"image": torch.zeros(count, 1, 1, 1), "tokens": torch.arange(3 * count).view(count, 3) + 10}
    objective, null = DDPM(cosine(), "v"), torch.tensor([1, 2, 2])
    losses = Captioned(objective, null, dropout=0.25).loss(model, batch, keys(count))
    empty = (model.ids == null).all(1)
    assert empty.float().mean().item() == pytest.approx(0.25, abs=0.0125)  # 4 deviations
    assert torch.equal(model.ids[~empty], batch["tokens"][~empty])
    expected = objective.loss(plain, {"image": batch["image"]}, keys(count))
    assert torch.equal(losses.value, expected.value)
    assert torch.equal(model.x, plain.x)
    part = torch.tensor([5, 17, 3])
    Captioned(objective, null, dropout=0.25).loss(model, {n: v[part] for n, v in batch.items()}, keys(count)[part])
    assert torch.equal((model.ids == null).all(1), empty[part])
    for share, shown in ((0.0, False), (1.0, True)):
        Captioned(objective, null, dropout=share).loss(model, batch, keys(count))
        assert (model.ids == null).all().item() == shown


def test_an_objective_with_labels_is_refused() -> None:
    batch = {"image": torch.zeros(2, 1, 1, 1), "tokens": torch.zeros(2, 3).long(), "label": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=r"label of shape \[2\] beside a prompt"):
        Captioned(DDPM(cosine(), "v", null=2), torch.tensor([0, 1, 1])).loss(Seen(), batch, keys(2))


class Attending(nn.Module):
    """The smallest denoiser that attends: the answer for every value from its own features and the mean context."""

    def __init__(self, values: int, features: int) -> None:
        super().__init__()
        self.read = nn.Linear(features, 32)
        self.see = nn.Linear(values + 2, 32)
        self.think = nn.Linear(32, 32)
        self.say = nn.Linear(32, values)

    def forward(self, x: Tensor, t: Tensor, label: None, *, context: Tensor) -> Tensor:
        phase = t[:, None] / 1000 * math.pi / 2
        seen = self.see(torch.cat([x.flatten(1), phase.cos(), phase.sin()], 1))
        felt = torch.tanh(seen + self.read(context.mean(1)))
        return self.say(torch.tanh(self.think(felt))).view_as(x)


def test_a_denoiser_learns_to_obey_two_prompts_and_the_empty_one() -> None:
    """Light images are +1 everywhere, dark ones -1, 2 x 2 values. So E[x0 | x_t, prompt] = +-1 whatever x_t is, and
    with the empty prompt E[x0 | x_t] = tanh(alpha sum(x_t) / sigma^2), which is 0 at sum 0."""
    draws = generator(0)
    words = text([LIGHT, DARK], SMALL, draws)
    denoiser = build(lambda: Attending(4, words.features), draws)
    before = {name: weight.clone() for name, weight in words.encoder.state_dict().items()}
    image = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    data = TensorData({"image": image, "tokens": words.tokens([LIGHT, DARK]).ids})
    schedule = cosine()
    objective = Captioned(DDPM(schedule, "x0"), words.null, dropout=0.5)
    config = TrainConfig(steps=300, batch_size=64, learning_rate=5e-3, warmup=10)
    for _ in Trainer(Prompted(denoiser, words.encoder), objective, data, config, seed=0).run():
        pass
    moved = [not torch.equal(weight, before[name]) for name, weight in words.encoder.state_dict().items()]
    assert all(moved)
    t = torch.tensor([500, 700])
    alpha, sigma = (table(t).float()[:, None] for table in (schedule.alpha, schedule.sigma))  # [2, 1]
    for place in (-0.5, 0.0, 0.5):  # of x_t, between the two clouds around +-alpha
        x = (place * alpha)[:, :, None, None].expand(2, 1, 2, 2)
        with torch.no_grad():
            found = {
                prompt: denoiser(x, t.float(), None, context=words.encode([prompt] * 2)["context"]).flatten(1).mean(1)
                for prompt in (LIGHT, DARK, "")
            }
        ends = torch.stack([found[LIGHT], found[DARK]])
        torch.testing.assert_close(ends, torch.tensor([[1.0], [-1.0]]).expand(2, 2), rtol=0, atol=0.2)
        exact = torch.tanh(4 * alpha * place * alpha / sigma**2)[:, 0]
        torch.testing.assert_close(found[""], exact, rtol=0, atol=0.5)  # of 2 between opposite answers


@pytest.mark.parametrize(("channels", "size", "multipliers"), [(3, 16, (2,)), (4, 8, (2,)), (3, 16, (1, 2))])
def test_the_network_of_scenes_and_latents_is_diffusers_own(
    channels: int, size: int, multipliers: tuple[int, ...], tmp_path: Path
) -> None:
    """Ours is saved as a stock network beside a stock tokenizer and encoder, and all answer as ours do together."""
    draws = generator(0)
    words = text([LIGHT, DARK], SMALL, draws)
    config = DiffusionConfig(width=32, multipliers=(1, *multipliers), blocks=1, attention=(0, 1))
    ours = build(lambda: network_of(config, Subject((channels, size, size), features=words.features)), draws)
    for weight in ours.parameters():  # also those that start at zero
        nn.init.normal_(weight, std=0.1, generator=draws)
    described, weights = unet.save(ours, size)
    folders.write(tmp_path / "unet", described, weights)
    words.save(tmp_path)
    theirs = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    prompts = [LIGHT, "", DARK]
    ids = tokenizer(prompts, padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt").input_ids
    x, t = torch.randn(3, channels, size, size, generator=draws), torch.tensor([0.0, 500.0, 999.0])
    with torch.no_grad():
        expected = theirs(x, t, encoder(ids)[0]).sample
        apart = ours(x, t, None, context=words.encode(prompts)["context"])
        together = Prompted(ours, words.encoder)(x, t, words.tokens(prompts).ids)
    assert expected.std() > 0.1
    for found in (apart, together):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_engine_draws_what_prompts_ask_for() -> None:
    """A denoiser whose answer is the mean of the context: every image is that, and guidance goes away from the empty
    prompt's."""

    class Reading(nn.Module):
        def forward(self, x: Tensor, t: Tensor, label: None, *, context: Tensor) -> Tensor:
            return context.mean((1, 2))[:, None, None, None].expand_as(x)

    words = text([LIGHT, DARK], SMALL, generator(0))
    with torch.no_grad():
        words.encoder.final_layer_norm.bias.normal_(generator=generator(1))  # or all means are 0
        words.encoder.final_layer_norm.weight.normal_(generator=generator(2))
    context = words.encode([LIGHT, DARK, ""])["context"]
    compiler = ClosedForms(cosine(), "x0")
    engine = Engine(Reading(), (1, 2, 2), compiler, rows=4, null={"context": context[2]})
    asked = [
        Request(0, "ddim", 3, condition={"context": context[0]}),
        Request(1, "ddim", 3, condition={"context": context[1]}, guidance=2.0),
        Request(2, "ddim", 3),
    ]
    light, dark, empty = context.mean((1, 2)).tolist()
    wanted = torch.tensor([light, 2 * dark - empty, empty]).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    torch.testing.assert_close(engine.sample(asked), wanted, rtol=0, atol=1e-4)
    assert abs(light - empty) > 1e-3
    assert abs(dark - light) > 1e-3


def test_a_run_on_latents_with_prompts_goes_on_bit_for_bit() -> None:
    draws = generator(3)
    data = {"mean": torch.randn(8, 4, 8, 8, generator=draws), "logvar": torch.randn(8, 4, 8, 8, generator=draws) - 4}

    def trainer() -> Trainer:
        draws = generator(0)
        words = text([LIGHT, DARK], SMALL, draws)
        config = DiffusionConfig(width=8, blocks=1, attention=(0, 1))
        denoiser = build(lambda: network_of(config, Subject((4, 8, 8), features=words.features)), draws)
        tokens = words.tokens([LIGHT, DARK] * 4).ids
        train = TrainConfig(steps=4, batch_size=4, ema=0.1)
        objective = Latent(Captioned(DDPM(cosine(), "v"), words.null, 0.5))
        return Trainer(
            Prompted(denoiser, words.encoder), objective, TensorData({**data, "tokens": tokens}), train, seed=1
        )

    whole, killed, resumed = (trainer() for _ in range(3))
    list(whole.run())
    list(killed.run(until=2))
    resumed.load_state_dict(killed.state_dict())
    list(resumed.run())
    for name, weight in whole.result.state_dict().items():
        assert torch.equal(weight, resumed.result.state_dict()[name]), name
