"""Every solver on every schedule and prediction: against diffusers, the exact flow, and data of known moments."""

from typing import Any, get_args

import diffusers as d
import numpy as np
import pytest
import torch
from torch import Tensor

from generative.diffusion.noise.continuous import EDM, Flow
from generative.diffusion.noise.denoiser import Prediction, target
from generative.diffusion.noise.schedule import Schedule, cosine, linear, scaled_linear_zero_snr, sigmoid
from generative.diffusion.solvers.probe import compile_scheduler
from generative.diffusion.solvers.solver import SOLVERS, SolverError, compile_solver, heun
from generative.diffusion.solvers.table import SolverTable, step
from tests.oracles.gaussian import Gaussian
from tests.oracles.mixture import Mixture

TRAILING = {"timestep_spacing": "trailing"}
V = {"prediction_type": "v_prediction"}

# our solver, schedule, prediction and spacing; diffusers' own
PAIRS: list[tuple[str, Schedule, Prediction, str, Any]] = [
    ("euler", linear(), "eps", "trailing", d.EulerDiscreteScheduler(**TRAILING)),
    ("euler", linear(), "v", "linspace", d.EulerDiscreteScheduler(timestep_spacing="linspace", **V)),
    ("heun", linear(), "eps", "trailing", d.HeunDiscreteScheduler(beta_start=1e-4, beta_end=0.02, **TRAILING)),
    ("heun", linear(), "v", "linspace", d.HeunDiscreteScheduler(beta_start=1e-4, beta_end=0.02, **V)),
    ("euler", EDM(), "edm", "karras", d.EDMEulerScheduler()),
    ("euler", EDM(smallest=0.01, largest=20.0, rho=5.0), "edm", "karras", d.EDMEulerScheduler(0.01, 20, rho=5)),
    ("dpmpp-2m", EDM(), "edm", "karras", d.EDMDPMSolverMultistepScheduler()),
    ("euler", Flow(), "flow", "linspace", d.FlowMatchEulerDiscreteScheduler()),
    ("euler", Flow(shift=3.0), "flow", "linspace", d.FlowMatchEulerDiscreteScheduler(shift=3.0)),
    ("heun", Flow(), "flow", "linspace", d.FlowMatchHeunDiscreteScheduler()),
    ("heun", Flow(shift=3.0), "flow", "linspace", d.FlowMatchHeunDiscreteScheduler(shift=3.0)),
]

SCHEDULES: dict[str, Schedule] = {
    "linear": linear(),
    "cosine": cosine(),
    "sigmoid": sigmoid(),
    "zero-snr": scaled_linear_zero_snr(),
    "edm": EDM(),
    "flow": Flow(),
    "shifted flow": Flow(shift=2.0),
}
PREDICTIONS: list[Prediction] = list(get_args(Prediction))


def run(table: SolverTable, x: Tensor, noise: Tensor | None, answer: Any) -> Tensor:
    """The samples [S, B, P] from x, which is scaled already; `answer(k, x seen, told)` is the network's."""
    h = torch.zeros(len(x), 1 + table.registers, x.shape[1], dtype=torch.float64)
    h[:, 0], path = x, []
    free = torch.full((len(x),), torch.inf).double()
    for k in range(len(table)):
        output = answer(k, h[:, 0] * table.input_scale[k], table.timesteps[k])
        z = None if noise is None else noise[k]
        h = step(table.rows(torch.full((len(x),), k)), h, output, z, free)
        path.append(h[:, 0])
    return torch.stack(path)


@pytest.mark.parametrize(("name", "schedule", "prediction", "spacing", "scheduler"), PAIRS)
@pytest.mark.parametrize("steps", [1, 2, 10, 28])  # of which T - 1 is a multiple: diffusers' linspace does not round
def test_a_closed_form_is_diffusers_own_row_by_row(
    name: str, schedule: Schedule, prediction: Prediction, spacing: str, scheduler: Any, steps: int
) -> None:
    """The same timesteps and inputs of the network, and the same samples where diffusers holds x / alpha."""
    form, probed = compile_solver(name, schedule, prediction, steps, spacing), compile_scheduler(scheduler, steps)
    if isinstance(scheduler, d.HeunDiscreteScheduler):  # which measures time in sigma / alpha
        form = heun(schedule.levels(steps, spacing), prediction, slant=0.0)
    torch.testing.assert_close(form.timesteps, probed.timesteps, rtol=1e-6, atol=1e-6)
    x = torch.randn(2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    divided = isinstance(scheduler, d.EulerDiscreteScheduler | d.HeunDiscreteScheduler)
    unit = torch.cat([form.alpha, form.alpha.new_ones(1)]) if divided else torch.ones(len(form) + 1).double()
    start = form.initial_scale * x
    seen: dict[str, list[Tensor]] = {"ours": [], "theirs": []}

    def network(which: str) -> Any:
        def answer(k: int, x: Tensor, told: Tensor) -> Tensor:
            seen[which].append(x)
            return torch.sin(1.7 * x + 0.003 * told) + 0.2 * torch.roll(x, 1, -1)

        return answer

    ours = run(form, start, None, network("ours"))
    theirs = run(probed, start / unit[0], None, network("theirs")) * unit[1:, None, None]
    size = ours.abs().amax((1, 2), keepdim=True)
    torch.testing.assert_close(theirs / size, ours / size, rtol=0, atol=3e-5)  # diffusers holds sigmas in float32
    torch.testing.assert_close(torch.stack(seen["theirs"]), torch.stack(seen["ours"]), rtol=1e-3, atol=1e-3)


def told(table: SolverTable, data: Any, prediction: Prediction) -> Any:
    """A network that says of each row's sample exactly what it was trained to say."""

    def answer(k: int, seen: Tensor, _: Tensor) -> Tensor:
        x, alpha, sigma = seen / table.input_scale[k], table.alpha[k], table.sigma[k]
        if isinstance(data, Gaussian):
            x0 = data.denoise(x, alpha.expand(len(x)), sigma.expand(len(x)))
        else:
            x0 = data.denoise(x, alpha.item(), sigma.item())
        return target(prediction, alpha.expand(1, 1), sigma.expand(1, 1), x0, (x - alpha * x0) / sigma)

    return answer


@pytest.mark.parametrize(
    ("name", "order", "schedule", "margin"),
    [
        ("euler", 1, EDM(), 0.15),
        ("heun", 2, EDM(), 0.2),
        ("dpmpp-2m", 2, EDM(), 0.2),
        ("euler", 1, Flow(), 0.15),
        ("heun", 2, Flow(), 0.15),
        ("heun", 2, Flow(shift=3.0), 0.15),
    ],
)
def test_order_of_convergence_where_levels_are_continuous(
    name: str, order: int, schedule: Schedule, margin: float
) -> None:
    """From where the solver starts to where it ends, by the exact flow of a Gaussian; errors fitted over 16 to 128."""
    data = Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double())
    counts, errors = [16, 32, 64, 128], []
    for steps in counts:
        table = compile_solver(name, schedule, "x0", steps)
        x = table.initial_scale * torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        start = (table.alpha[0].item(), table.sigma[0].item())
        expected = data.flow(x, start, (1.0, 0.0))
        errors.append((run(table, x, None, told(table, data, "x0"))[-1] - expected).abs().max().item())
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=margin), errors
    assert errors[-1] < 10.0 ** (-1.4 * order)


@pytest.mark.parametrize("schedule", list(SCHEDULES.values()), ids=list(SCHEDULES))
def test_heun_is_nearer_the_exact_flow_than_euler_at_ten_levels(schedule: Schedule) -> None:
    """Also where sigma / alpha is 20,000 at the first level, or infinite: its own time has an end."""
    data = Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double())
    errors = {}
    for name in ("euler", "heun"):
        table = compile_solver(name, schedule, "x0", 10)
        x = table.initial_scale * torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        expected = data.flow(x, (table.alpha[0].item(), table.sigma[0].item()), (1.0, 0.0))
        errors[name] = (run(table, x, None, told(table, data, "x0"))[-1] - expected).square().mean().item() ** 0.5
    assert errors["heun"] < 0.9 * errors["euler"], errors


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", list(SCHEDULES.values()), ids=list(SCHEDULES))
def test_a_solver_goes_the_same_way_whatever_the_network_says(prediction: Prediction, schedule: Schedule) -> None:
    data = Mixture(torch.tensor([0.3, 0.7]).double(), torch.tensor([[-1.0, 0.5], [0.8, -0.2]]).double(), 0.2)
    draws = torch.Generator().manual_seed(0)
    x, noise = torch.randn(6, 2, generator=draws).double(), torch.randn(30, 6, 2, generator=draws).double()
    for name in SOLVERS:
        plain = compile_solver(name, schedule, "x0", 12)
        if prediction == "eps" and (plain.alpha == 0).any():
            with pytest.raises(ValueError, match="'eps' determines no x0 where alpha is 0"):
                compile_solver(name, schedule, prediction, 12)
            continue
        table, start = compile_solver(name, schedule, prediction, 12), plain.initial_scale * x
        expected = run(plain, start, noise, told(plain, data, "x0"))
        torch.testing.assert_close(
            run(table, start, noise, told(table, data, prediction)), expected, rtol=1e-6, atol=1e-6
        )


MIXTURE = Mixture(
    torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([[-1.0, -0.5], [1.0, -0.5], [0.0, 1.0]]).double(), 0.25
)


@pytest.mark.parametrize("name", list(SOLVERS))
@pytest.mark.parametrize("schedule", list(SCHEDULES.values()), ids=list(SCHEDULES))
def test_a_mixture_is_drawn_with_its_moments_and_weights(name: str, schedule: Schedule) -> None:
    """2,000 samples of the exact denoiser in 150 steps, 80 of the second order.

    Margins: 4 standard errors of 2,000 draws, and 0.02 more for the solver's own error.
    """
    n, draws = 2000, torch.Generator().manual_seed(0)
    table = compile_solver(name, schedule, "v", 80 if name in ("heun", "dpmpp-2m") else 150)
    x = table.initial_scale * torch.randn(n, 2, generator=draws, dtype=torch.float64)
    noise = torch.randn(len(table), n, 2, generator=draws, dtype=torch.float64) if table.stochastic else None
    drawn = run(table, x, noise, told(table, MIXTURE, "v"))[-1]
    weights = torch.bincount(MIXTURE.mode(drawn), minlength=3) / n
    off = (weights - MIXTURE.weights).abs()
    assert (off < 4 * (MIXTURE.weights * (1 - MIXTURE.weights) / n).sqrt() + 0.02).all(), weights
    variance = MIXTURE.covariance.diagonal()
    assert ((drawn.mean(0) - MIXTURE.mean).abs() < 4 * (variance / n).sqrt() + 0.02).all()
    fourth = (drawn - drawn.mean(0)).pow(4).mean(0)
    assert ((drawn.T.cov().diagonal() - variance).abs() < 4 * ((fourth - variance**2) / n).sqrt() + 0.02).all()
    own = drawn - MIXTURE.means[MIXTURE.mode(drawn)]
    assert own.std(0).tolist() == pytest.approx([MIXTURE.std] * 2, abs=4 * MIXTURE.std / (2 * n) ** 0.5 + 0.02)


@pytest.mark.parametrize("schedule", list(SCHEDULES.values()), ids=list(SCHEDULES))
def test_euler_is_ddim_without_noise(schedule: Schedule) -> None:
    euler, ddim = compile_solver("euler", schedule, "v", 15), compile_solver("ddim", schedule, "v", 15)
    torch.testing.assert_close(euler.A, ddim.A)
    torch.testing.assert_close(euler.B, ddim.B)
    assert not euler.stochastic


@pytest.mark.parametrize("name", list(SOLVERS))
@pytest.mark.parametrize("schedule", [linear(), EDM(), Flow()], ids=["linear", "edm", "flow"])
def test_what_is_left_out_at_the_start_changes_no_later_row(name: str, schedule: Schedule) -> None:
    """But for a solver that remembers, whose first step is the first order's."""
    whole, part = compile_solver(name, schedule, "v", 10), compile_solver(name, schedule, "v", 10, begin=4)
    rows = torch.arange(len(whole) - len(part) + (name == "dpmpp-2m"), len(whole))
    for field in ("timesteps", "alpha", "sigma", "A", "B", "C"):
        later = getattr(whole, field)[rows]
        torch.testing.assert_close(getattr(part, field)[-len(rows) :], later)
    assert len(part) == (11 if name == "heun" else 6)


@pytest.mark.parametrize(
    ("schedule", "steps", "spacing", "begin", "words"),
    [
        (EDM(), 0, None, 0, "steps is 0; expected at least 1"),
        (EDM(), 10, "trailing", 0, "did you mean 'karras'"),
        (Flow(), 10, "karras", 0, "known: trailing, linspace"),
        (Flow(), 10, None, 10, "begin is 10: of 10 steps, 0 to 9"),
    ],
)
def test_levels_that_there_are_not(schedule: Schedule, steps: int, spacing: str | None, begin: int, words: str) -> None:
    with pytest.raises(SolverError, match=words):
        compile_solver("euler", schedule, "v", steps, spacing, begin=begin)
