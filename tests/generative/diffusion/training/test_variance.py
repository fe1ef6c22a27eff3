"""The learned variance: its bound by numerical integration, its optimum by Bayes' rule, its steps against diffusers."""

import math
from typing import Any

import diffusers
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

from generative.diffusion.noise.continuous import Flow
from generative.diffusion.noise.schedule import Levels, cosine, linear
from generative.diffusion.solvers import solver
from generative.diffusion.training.objective import DDPM, Noised
from generative.diffusion.training.variance import Hybrid, bounds, draw
from lab import streams
from tests.oracles.gaussian import posterior

FEW = linear(20, 0.005, 0.4)


def one(t: int, x0: float, eps: float) -> Noised:
    def number(value: float) -> Tensor:
        return torch.tensor([[value]], dtype=torch.float64)

    return Noised(number(x0), number(eps), FEW.at(torch.tensor([t])), None)


@pytest.mark.parametrize("t", [1, 2, 10, 19])
@pytest.mark.parametrize("v", [-1.0, -0.2, 0.7, 1.0])
def test_the_bound_is_the_divergence_by_numerical_integration(t: int, v: float) -> None:
    """q(x' | x, x_0) by Bayes' rule on two levels, p of the network's words; KL integrated over x'."""
    noised, said = one(t, 0.4, -1.1), 0.3
    levels = [(FEW.alphas[s].item(), FEW.sigmas[s].item()) for s in (t, t - 1)]
    of_x, of_x0, small = posterior(*levels[0], *levels[1])
    large = 1 - (levels[0][0] / levels[1][0]) ** 2  # beta_t
    x = levels[0][0] * 0.4 + levels[0][1] * -1.1
    q = stats.norm(of_x * x + of_x0 * 0.4, small**0.5)
    variance = large ** ((v + 1) / 2) * small ** (1 - (v + 1) / 2)
    p = stats.norm(of_x * x + of_x0 * said, variance**0.5)
    kl = integrate.quad(
        lambda y: q.pdf(y) * (q.logpdf(y) - p.logpdf(y)), q.mean() - 12 * q.std(), q.mean() + 12 * q.std()
    )
    found = Hybrid(DDPM(FEW, "x0")).bits(noised, torch.tensor([[said]]).double(), torch.tensor([[v]]).double())
    assert found.item() == pytest.approx(kl[0] / math.log(2), rel=1e-6)


@pytest.mark.parametrize(("x0", "low", "high"), [(0.2, -1 / 255, 1 / 255), (-1.0, -9.0, 1 / 255), (1.0, -1 / 255, 9.0)])
def test_the_last_step_is_the_likelihood_of_a_pixels_value(x0: float, low: float, high: float) -> None:
    noised, said, v = one(0, x0, 0.5), x0 + 0.05, 0.4
    of_x, of_x0, _ = posterior(FEW.alphas[0].item(), FEW.sigmas[0].item(), 1.0, 0.0)
    _, _, first = posterior(*[each[s].item() for s in (1, 0) for each in (FEW.alphas, FEW.sigmas)])
    beta = 1 - FEW.alphas[0].item() ** 2
    mean = of_x * noised.x.item() + of_x0 * said
    p = stats.norm(mean, (beta**0.7 * first**0.3) ** 0.5)
    mass = integrate.quad(p.pdf, x0 + low, x0 + high, points=[mean], epsabs=1e-12)[0]
    found = Hybrid(DDPM(FEW, "x0")).bits(noised, torch.tensor([[said]]).double(), torch.tensor([[v]]).double())
    assert found.item() == pytest.approx(-math.log2(mass), rel=1e-5)


def test_the_bound_is_least_at_the_variance_that_the_data_has() -> None:
    """x_0 ~ N(0, 1/4): x' given x varies by beta~ and by what x leaves open of x_0. 30,000 samples at one timestep."""
    t, n = 6, 30_000
    draws = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(n, 1, generator=draws, dtype=torch.float64) for _ in range(2))
    noised = Noised(0.5 * x0, eps, FEW.at(torch.full((n,), t)), None)
    alpha, sigma = FEW.alphas[t].item(), FEW.sigmas[t].item()
    best = alpha / 4 / (alpha**2 / 4 + sigma**2) * noised.x  # E[x_0 | x]
    _, of_x0, small = posterior(alpha, sigma, FEW.alphas[t - 1].item(), FEW.sigmas[t - 1].item())
    true = small + of_x0**2 / (4 + (alpha / sigma) ** 2)
    large = 1 - (alpha / FEW.alphas[t - 1].item()) ** 2
    expected = 2 * (math.log(true) - math.log(small)) / (math.log(large) - math.log(small)) - 1
    grid = torch.linspace(-1, 1, 41).double()
    hybrid = Hybrid(DDPM(FEW, "x0"))
    values = torch.stack([hybrid.bits(noised, best, torch.full_like(best, v)).mean() for v in grid.tolist()])
    assert -0.9 < expected < 0.9
    assert grid[values.argmin()].item() == pytest.approx(expected, abs=0.075)


class Twice(torch.nn.Module):
    """Says something smooth of either half."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.3, 0.4]))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return torch.cat([torch.sin(self.weight[0] * x), torch.tanh(self.weight[1] * x)], dim=1)


def test_the_mean_is_taught_by_the_simple_loss_alone() -> None:
    model, n = Twice(), 64
    batch = {"image": torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1}
    key = streams.bits(torch.tensor(5), torch.arange(n))
    simple, hybrid = DDPM(FEW, "v"), Hybrid(DDPM(FEW, "v"))

    class Mean(torch.nn.Module):
        def forward(self, *args: Any) -> Tensor:
            return model(*args)[:, :1]

    (of_mean,) = torch.autograd.grad(simple.loss(Mean(), batch, key).value.mean(), model.weight)
    losses = hybrid.loss(model, batch, key)
    (of_both,) = torch.autograd.grad(losses.value.mean(), model.weight)
    torch.testing.assert_close(of_both[0], of_mean[0])
    assert of_both[1] != 0
    torch.testing.assert_close(losses.value, simple.loss(Mean(), batch, key).value + 0.001 * losses.metrics["bound"])
    assert losses.value.shape == (n,)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("clip", [False, True])
def test_a_learned_variance_steps_as_in_diffusers(kind: Any, clip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """To timestep 0: onto clean data from any other, diffusers adds noise of a variance between 1e-20 and beta."""
    steps, prediction = 12, {"epsilon": "eps", "v_prediction": "v"}[kind]
    levels = Levels.through(linear(), torch.from_numpy(solver.leading(1000, steps)))
    draws = torch.Generator().manual_seed(0)
    start = torch.randn(2, 1, 4, 4, generator=draws, dtype=torch.float64)
    noise = torch.randn(steps, 2, 1, 4, 4, generator=draws, dtype=torch.float64)
    theirs: Any = diffusers.DDPMScheduler(
        prediction_type=kind, variance_type="learned_range", clip_sample=clip, timestep_spacing="leading"
    )
    theirs.alphas_cumprod, theirs.one = linear().alphas ** 2, torch.tensor(1.0, dtype=torch.float64)
    theirs.set_timesteps(steps)
    network = Twice().double().requires_grad_(False)
    ours = draw(network, levels, prediction, start, noise, clip=1.0 if clip else torch.inf)  # type: ignore[arg-type]
    x = start
    for k, (t, found) in enumerate(zip(theirs.timesteps, ours, strict=True)):
        module = "diffusers.schedulers.scheduling_ddpm.randn_tensor"
        monkeypatch.setattr(module, lambda *_, k=k, **__: noise[k])
        x = theirs.step(network(x, t, None), t, x).prev_sample
        torch.testing.assert_close(found, x, rtol=1e-9, atol=1e-9)


def test_with_the_right_variance_few_steps_draw_the_right_spread() -> None:
    """x_0 ~ N(0, 1/4), 8 steps: every x' given x is Gaussian, so with its own variance each level's spread is exact.

    With the smallest it is far too small. 20,000 samples; 4 standard errors.
    """
    schedule, n = linear(), 20_000
    levels = Levels.through(schedule, torch.from_numpy(solver.trailing(1000, 8)))
    small, large = bounds(levels)

    def network(exact: bool) -> Any:
        def answer(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
            alpha, sigma = schedule.alpha(t.long()), schedule.sigma(t.long())
            k = int((levels.timesteps == t[0]).nonzero())
            _, of_x0, _ = posterior(*(float(each[i]) for i in (k, k + 1) for each in (levels.alphas, levels.sigmas)))
            true = small[k].exp() + of_x0**2 / (4 + (levels.alphas[k] / levels.sigmas[k]) ** 2)
            v = 2 * (true.log() - small[k]) / (large[k] - small[k]) - 1 if exact else torch.tensor(-1.0)
            return torch.cat([(alpha / 4 / (alpha**2 / 4 + sigma**2))[:, None] * x, v.expand(n, 1).double()], dim=1)

        return answer

    draws = torch.Generator().manual_seed(0)
    start, noise = torch.randn(n, 1, generator=draws).double(), torch.randn(8, n, 1, generator=draws).double()
    right, least = (list(draw(network(exact), levels, "x0", start, noise)) for exact in (True, False))
    for k in range(7):  # not at clean data, where the last estimate stands
        variance = (levels.alphas[k + 1] ** 2 / 4 + levels.sigmas[k + 1] ** 2).item()
        error = variance * (2 / n) ** 0.5
        assert right[k].var().item() == pytest.approx(variance, abs=4 * error)
    assert least[6].var().item() < variance - 10 * error


def test_bounds_are_beta_and_its_posterior_variance() -> None:
    schedule = cosine(50)
    small, large = bounds(Levels.through(schedule, torch.arange(50).flip(0)))
    alpha_bar = torch.cat([torch.ones(1).double(), schedule.alphas**2])
    beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).flip(0)
    torch.testing.assert_close(large.exp(), beta, rtol=1e-7, atol=0)
    tilde = ((1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])).flip(0) * beta
    torch.testing.assert_close(small.exp()[:-1], tilde[:-1], rtol=1e-7, atol=0)
    assert small[-1] == small[-2]


def test_a_variance_is_learned_between_timesteps_only() -> None:
    with pytest.raises(ValueError, match="needs a table of timesteps"):
        Hybrid(DDPM(Flow(), "flow"))
