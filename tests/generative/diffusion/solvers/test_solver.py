"""Solver tables against the posterior by Bayes' rule, the exact flow of a Gaussian, and diffusers' own steps."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from generative.diffusion.noise.denoiser import Prediction, x0_coefficients
from generative.diffusion.noise.schedule import NoiseSchedule, cosine, linear
from generative.diffusion.solvers import solver
from generative.diffusion.solvers.solver import Levels, SolverError, compile_solver
from generative.diffusion.solvers.table import SolverTable, concatenate, idle, step
from tests.oracles.gaussian import Gaussian, moments, posterior

KINDS: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


def network(x: Tensor, t: float) -> Tensor:
    """Some smooth answer, of the size that noise has."""
    return torch.sin(1.7 * x + 0.003 * t) + 0.2 * torch.roll(x, 1, -1)


def trajectory(table: SolverTable, x: Tensor, noise: Tensor, clip: float = torch.inf) -> Tensor:
    """Every sample on the way, [S, B, P], by `step` on one row at a time."""
    table = table.to("cpu", x.dtype)
    h = torch.zeros(x.shape[0], 1 + table.registers, x.shape[1], dtype=x.dtype)
    h[:, 0] = table.initial_scale * x
    path = []
    for k in range(len(table)):
        rows = table.rows(torch.full((len(x),), k))
        output = network(h[:, 0] * table.input_scale[k], table.timesteps[k].item())
        h = step(rows, h, output, noise[k], torch.full((len(x),), clip, dtype=x.dtype))
        path.append(h[:, 0])
    return torch.stack(path)


def diffusers_trajectory(
    scheduler: Any, x: Tensor, noise: Tensor, monkeypatch: pytest.MonkeyPatch, **extra: Any
) -> Tensor:
    """The same by diffusers' own `step`, fed the same noise."""
    path = []
    for k, t in enumerate(scheduler.timesteps):
        module = "diffusers.schedulers." + type(scheduler).__module__.rsplit(".", 1)[-1]
        monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, k=k, **__: noise[k])
        x = scheduler.step(network(x, float(t)), t, x, **extra).prev_sample
        path.append(x)
    return torch.stack(path)


def inputs(steps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(3, 16, generator=draws, dtype=torch.float64)
    return x.to(dtype), torch.randn(steps, 3, 16, generator=draws, dtype=torch.float64).to(dtype)


def in_float64(scheduler: Any, schedule: NoiseSchedule) -> Any:
    """diffusers holds its tables in float32; give it ours, so that the comparison is not limited by that."""
    scheduler.alphas_cumprod = schedule.alphas**2
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("clip", [False, True])
def test_ddpm_is_diffusers_ddpm_step_by_step(
    kind: str, spacing: str, clip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, x, noise = linear(), *inputs(10, torch.float64)
    theirs = in_float64(
        diffusers.DDPMScheduler(
            prediction_type=kind, timestep_spacing=spacing, clip_sample=clip, variance_type="fixed_small"
        ),
        schedule,
    )
    theirs.set_timesteps(10)
    table = compile_solver("ddpm", schedule, KINDS[kind], 10, spacing)
    ours = trajectory(table, x, noise, 1.0 if clip else torch.inf)
    assert table.timesteps.tolist() == theirs.timesteps.tolist()
    torch.testing.assert_close(ours, diffusers_trajectory(theirs, x, noise, monkeypatch), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("compiler", [solver.ddim, solver.ddim_unclipped_direction])
def test_ddim_is_diffusers_ddim_step_by_step(
    kind: str, spacing: str, clip: bool, eta: float, compiler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, x, noise = linear(), *inputs(20, torch.float64)
    theirs = in_float64(
        diffusers.DDIMScheduler(prediction_type=kind, timestep_spacing=spacing, clip_sample=clip), schedule
    )
    theirs.set_timesteps(20)
    timesteps = torch.from_numpy(solver.SPACINGS[spacing](1000, 20).copy())
    table = compiler(Levels.through(schedule, timesteps), KINDS[kind], eta)
    ours = trajectory(table, x, noise, 1.0 if clip else torch.inf)
    assert table.stochastic == (eta > 0)
    rederives = compiler is solver.ddim
    expected = diffusers_trajectory(theirs, x, noise, monkeypatch, eta=eta, use_clipped_model_output=rederives)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


# not eps with cosine: its alpha is 5e-5 at the noisiest step, and float32 division by that compares nothing
@pytest.mark.parametrize(
    ("betas", "kind"),
    [*(("linear", kind) for kind in KINDS), ("squaredcos_cap_v2", "sample"), ("squaredcos_cap_v2", "v_prediction")],
)
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 10, 20])
def test_dpmpp_2m_is_diffusers_multistep_step_by_step(
    kind: str, spacing: str, steps: int, betas: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, noise = inputs(steps, torch.float32)
    theirs = diffusers.DPMSolverMultistepScheduler(prediction_type=kind, timestep_spacing=spacing, beta_schedule=betas)
    theirs.set_timesteps(steps)
    name = spacing if spacing == "trailing" else f"{spacing}-open"
    table = compile_solver("dpmpp-2m", linear() if betas == "linear" else cosine(), KINDS[kind], steps, name)
    assert table.timesteps.tolist() == theirs.timesteps.tolist()
    expected = diffusers_trajectory(theirs, x, noise, monkeypatch)
    scale = expected.abs().amax().clamp(min=1)  # diffusers upcasts to float32 at most
    torch.testing.assert_close(trajectory(table, x, noise) / scale, expected / scale, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [10, 20])
def test_dpmpp_2m_may_end_before_clean_data_as_in_diffusers(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the least noisy training level; first order there only in fewer than 15 steps."""
    schedule, (x, noise) = linear(), inputs(steps, torch.float32)
    theirs = diffusers.DPMSolverMultistepScheduler(final_sigmas_type="sigma_min", timestep_spacing="linspace")
    theirs.set_timesteps(steps)
    t = torch.from_numpy(solver.linspace(1000, steps + 1).copy())  # the last node is timestep 0
    table = solver.dpmpp_2m(Levels(t[:-1].double(), schedule.alpha(t), schedule.sigma(t)), "eps")
    assert table.timesteps.tolist() == theirs.timesteps.tolist()
    assert (table.A[-1, 0, 1] == 0) == (steps < 15)
    expected = diffusers_trajectory(theirs, x, noise, monkeypatch)
    scale = expected.abs().amax()
    torch.testing.assert_close(trajectory(table, x, noise) / scale, expected / scale, rtol=1e-5, atol=1e-5)


def test_ddpm_rows_are_the_posterior_by_bayes_rule() -> None:
    schedule = cosine()
    timesteps = torch.from_numpy(solver.trailing(1000, 50))
    table = compile_solver("ddpm", schedule, "x0", 50)
    nodes = [*zip(schedule.alpha(timesteps).tolist(), schedule.sigma(timesteps).tolist(), strict=True), (1.0, 0.0)]
    for k in range(50):
        x, x0, variance = posterior(*nodes[k], *nodes[k + 1])
        assert table.A[k, 0, 0].item() == pytest.approx(x, rel=1e-9, abs=1e-12)
        assert table.B[k, 0].item() == pytest.approx(x0, rel=1e-9, abs=1e-12)
        assert table.C[k, 0].item() ** 2 == pytest.approx(variance, rel=1e-9, abs=1e-12)


def test_ddim_at_eta_one_has_the_ancestral_mean_and_variance() -> None:
    path = Levels.through(linear(), torch.from_numpy(solver.trailing(1000, 30)))
    ddpm, ddim = solver.ddpm(path, "v"), solver.ddim(path, "v", eta=1.0)
    torch.testing.assert_close(ddim.C, ddpm.C)
    torch.testing.assert_close(ddim.A, ddpm.A)
    torch.testing.assert_close(ddim.B, ddpm.B)


def exact_path(steps: int, start: float, end: float) -> Levels:
    """Nodes uniform in lambda, variance preserving."""
    lam = torch.linspace(start, end, steps + 1, dtype=torch.float64)
    return Levels(
        torch.arange(steps, dtype=torch.float64), torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()
    )


def solve(table: SolverTable, path: Levels, data: Gaussian, x: Tensor) -> Tensor:
    """The solver's last sample with the exact denoiser, told as x0."""
    h = torch.zeros(len(x), 1 + table.registers, x.shape[1], dtype=torch.float64)
    h[:, 0] = x
    for k in range(len(table)):
        alpha, sigma = path.alphas[k].expand(len(x)), path.sigmas[k].expand(len(x))
        rows = table.rows(torch.full((len(x),), k))
        h = step(rows, h, data.denoise(h[:, 0], alpha, sigma), None, torch.full((len(x),), torch.inf).double())
    return h[:, 0]


@pytest.mark.parametrize(("compiler", "order"), [(solver.ddim, 1), (solver.dpmpp_2m, 2)])
def test_order_of_convergence_to_the_exact_probability_flow(compiler: Any, order: int) -> None:
    data = Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double())
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counts, errors = [32, 64, 128, 256], []
    for steps in counts:
        path = exact_path(steps, -4.0, 3.0)
        ends = [(path.alphas[k].item(), path.sigmas[k].item()) for k in (0, -1)]
        errors.append((solve(compiler(path, "x0"), path, data, x) - data.flow(x, *ends)).abs().max().item())
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.15)
    assert errors[-1] < 10.0 ** (-1.5 * order)


def test_ddpm_converges_to_the_exact_moments_with_order_one() -> None:
    """A stochastic solver has no path to compare: its order is that of the moments it draws (weak convergence)."""
    data = Gaussian(torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([[0.5, 0.3], [0.3, 0.4]]).double())
    counts, errors = [64, 128, 256, 512], []
    for steps in counts:
        path = exact_path(steps, -8.0, 3.0)  # from so much noise that starting at N(0, I) is no error
        mean, covariance = moments(solver.ddpm(path, "x0"), path.alphas[:-1], path.sigmas[:-1], data)
        alpha, sigma = path.alphas[-1], path.sigmas[-1]
        expected = alpha**2 * data.covariance + sigma**2 * torch.eye(2, dtype=torch.float64)
        errors.append(max((mean - alpha * data.mean).abs().max().item(), (covariance - expected).abs().max().item()))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(1, abs=0.15)
    assert errors[-1] < 0.03


def test_predictions_determine_the_same_data() -> None:
    draws = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 50, generator=draws, dtype=torch.float64)
    alpha, sigma = linear().alphas[::20], linear().sigmas[::20]
    x = alpha * x0 + sigma * eps
    for prediction, output in (("eps", eps), ("x0", x0), ("v", alpha * eps - sigma * x0)):
        p, q = x0_coefficients(prediction, alpha, sigma)  # type: ignore[arg-type]  # a literal, seen as str
        torch.testing.assert_close(p * x + q * output, x0)


def test_eps_is_refused_where_nothing_is_left_of_the_data() -> None:
    zero_snr = NoiseSchedule(torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double())
    with pytest.raises(ValueError, match="'eps' determines no x0"):
        compile_solver("ddim", zero_snr, "eps", 1)
    assert torch.isfinite(compile_solver("ddim", zero_snr, "v", 1).A).all()


def test_the_idle_row_and_padding_leave_the_state_as_it_is() -> None:
    table = concatenate([idle(3), compile_solver("dpmpp-2m", linear(), "eps", 5).padded(3)])
    assert table.A.shape == (6, 4, 4)
    draws = torch.Generator().manual_seed(0)
    h = torch.randn(2, 4, 7, generator=draws, dtype=torch.float64)
    output, z = torch.randn(2, 2, 7, generator=draws, dtype=torch.float64)
    after = step(table.rows(torch.tensor([0, 3])), h, output, z, torch.full((2,), torch.inf).double())
    assert torch.equal(after[0], h[0])
    assert not torch.equal(after[1, :2], h[1, :2])
    assert torch.equal(after[1, 2:], torch.zeros(2, 7, dtype=torch.float64))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dpmp-2m", 10), "did you mean 'dpmpp-2m'"),
        (("ddim", 10, "trailling"), "did you mean 'trailing'"),
        (("ddim", 0), "from 1 to 1000"),
        (("ddim", 1001), "steps is 1001"),
        (("ddim", 1000, "linspace-open"), "from 1 to 999"),
    ],
)
def test_unknown_solvers_name_the_nearest(arguments: tuple[Any, ...], words: str) -> None:
    name, *rest = arguments
    with pytest.raises(SolverError, match=words):
        compile_solver(name, linear(), "eps", *rest)
