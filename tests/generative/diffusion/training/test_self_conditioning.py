"""Self-conditioning: what the network is shown, how often, and that the first pass is not differentiated."""

import pytest
import torch
from torch import Tensor

from generative.diffusion.noise.continuous import EDM
from generative.diffusion.noise.denoiser import Denoiser, column, input_scale
from generative.diffusion.noise.schedule import Schedule, cosine
from generative.diffusion.training.objective import DDPM
from generative.diffusion.training.self_conditioning import SelfConditioned
from lab import streams


class Recorder(torch.nn.Module):
    """Answers from both halves of its input, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.8))
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.shown.append(x.detach())
        noisy, told = x.chunk(2, dim=1)
        return torch.sin(self.weight * noisy) + 0.5 * self.weight * told


@pytest.mark.parametrize(("schedule", "prediction"), [(cosine(), "v"), (EDM(), "edm")])
def test_half_are_told_their_own_detached_estimate_the_others_zeros(schedule: Schedule, prediction: str) -> None:
    n, model = 4000, Recorder()
    objective = DDPM(schedule, prediction)  # type: ignore[arg-type]  # a literal, seen as str
    batch = {"image": torch.rand(n, 2, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1}
    key = streams.bits(torch.tensor(3), torch.arange(n))
    losses = SelfConditioned(objective, clip=0.3).loss(model, batch, key)
    assert len(model.shown) == 2
    (noisy, nothing), (again, told) = (x.chunk(2, dim=1) for x in model.shown)
    assert torch.equal(noisy, again)
    assert (nothing == 0).all()
    noised = objective.noised(batch, key)
    scale = column(input_scale(objective.prediction, noised.level.alpha, noised.level.sigma), noised.x)
    torch.testing.assert_close(noisy, scale * noised.x)
    with torch.no_grad():
        first = Denoiser(lambda x, t, label: torch.sin(model.weight * x), objective.prediction)
        estimate = first(noised.x, noised.level).clamp(-0.3, 0.3)
    some = told.flatten(1).any(1)
    assert some.float().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / n**0.5)
    torch.testing.assert_close(told[some], estimate[some])
    # the estimate is a number to the second pass: the gradient is that of the answer to what was shown
    (found,) = torch.autograd.grad(losses.value.mean(), model.weight)
    answer = torch.sin(model.weight * again) + 0.5 * model.weight * told
    (expected,) = torch.autograd.grad(objective.error(noised, answer).mean(), model.weight)
    torch.testing.assert_close(found, expected)


def test_the_coin_of_a_sample_is_its_own_and_not_another_draw() -> None:
    n, model = 4000, Recorder()
    batch = {"image": torch.zeros(n, 1, 1, 1)}
    key = streams.bits(torch.tensor(9), torch.arange(n))
    objective = DDPM(cosine(), "v")
    SelfConditioned(objective).loss(model, batch, key)
    told = model.shown[1][:, 1].flatten() != 0
    part = Recorder()
    SelfConditioned(objective).loss(part, {"image": batch["image"][1000:1400]}, key[1000:1400])
    assert torch.equal(part.shown[1][:, 1].flatten() != 0, told[1000:1400])
    time = objective.noised(batch, key).level.told
    assert abs(torch.corrcoef(torch.stack([told.double(), time]))[0, 1].item()) < 4 / n**0.5
