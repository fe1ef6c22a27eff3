"""diffusers' schedulers as tables: against their own steps, against the closed forms, and those that are refused."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

from generative.diffusion.noise.schedule import linear
from generative.diffusion.solvers import memory
from generative.diffusion.solvers.probe import compile_scheduler
from generative.diffusion.solvers.solver import SolverError, compile_solver
from generative.diffusion.solvers.table import SolverTable, step
from tests.oracles.schedulers import LINEAR, loop

S = diffusers


def network(x: Tensor, t: float) -> Tensor:
    """Some smooth answer, of the size that noise has."""
    return torch.sin(1.7 * x + 0.003 * t) + 0.2 * torch.roll(x, 1, -1)


def ours(table: SolverTable, x: Tensor, noise: Tensor) -> Tensor:
    """Every sample on the way, [S, P]."""
    h = torch.zeros(1, 1 + table.registers, len(x), dtype=torch.float64)
    h[0, 0], path = x, []
    for k in range(len(table)):
        output = network(h[:, 0] * table.input_scale[k], table.timesteps[k].item())
        clip = torch.tensor([table.clip], dtype=torch.float64)
        h = step(table.rows(torch.tensor([k])), h, output, noise[k : k + 1], clip)
        path.append(h[0, 0])
    return torch.stack(path)


@pytest.mark.parametrize(("kind", "arguments", "registers"), LINEAR)
def test_a_table_goes_where_the_scheduler_goes(kind: Any, arguments: dict[str, Any], registers: int) -> None:
    """With a network that is not linear, so that every number of every row counts."""
    table = compile_scheduler(kind(**arguments), 12)
    draws = torch.Generator().manual_seed(1)
    x = table.initial_scale * torch.randn(48, generator=draws, dtype=torch.float64)
    noise = torch.randn(len(table), 48, generator=draws, dtype=torch.float64)
    scheduler = kind(**arguments)
    scheduler.set_timesteps(12)
    shape = (1, 1, 48)  # as pixels of an image
    expected = loop(scheduler, network, x.view(shape), noise.view(-1, *shape)).flatten(1)
    found = ours(table, x, noise)
    size = expected.abs().amax(1, keepdim=True)
    torch.testing.assert_close(found / size, expected / size, rtol=0, atol=2e-5)  # some compute in float32
    assert table.registers == registers


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [
        (S.DPMSolverMultistepScheduler(thresholding=True), "dynamic thresholding is not linear"),
        (S.ScoreSdeVeScheduler(), "its step takes ()"),
        (S.RePaintScheduler(), "original_image"),
        (S.LCMScheduler(), "takes no 60 steps"),
        (S.DDIMScheduler(rescale_betas_zero_snr=True, timestep_spacing="trailing"), "not finite after step 0 of 60"),
        (S.VQDiffusionScheduler(num_vec_classes=4), "VQDiffusionScheduler is no solver table"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(scheduler: Any, words: str) -> None:
    with pytest.raises(SolverError) as caught:
        compile_scheduler(scheduler, 60)
    assert words in str(caught.value)


class Bent(S.EulerDiscreteScheduler):  # type: ignore[misc]  # diffusers ships no types
    """Linear but for a hundredth of a sine."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **extra: Any) -> Any:
        out = super().step(model_output, timestep, sample, **extra)
        out.prev_sample = out.prev_sample + 0.01 * torch.sin(out.prev_sample)
        return out


def test_a_bend_of_a_hundredth_is_found() -> None:
    with pytest.raises(SolverError, match="it is not linear: step 0 of 12"):
        compile_scheduler(Bent(), 12)


def test_a_scheduler_is_left_as_it_was() -> None:
    scheduler = S.UniPCMultistepScheduler()
    before = compile_scheduler(scheduler, 9)
    assert scheduler.num_inference_steps is None
    assert scheduler.model_outputs == [None, None]
    again = compile_scheduler(scheduler, 9)
    assert torch.equal(before.A, again.A)


def test_what_is_probed_is_the_closed_form() -> None:
    """DDIM, DDPM and DPM-Solver++(2M) in eps: the same numbers a row, found without a look at any formula."""
    told = {"timestep_spacing": "trailing", "clip_sample": False}
    for name, scheduler in (("ddim", S.DDIMScheduler(**told)), ("ddpm", S.DDPMScheduler(**told))):
        form, probed = compile_solver(name, linear(), "eps", 10), compile_scheduler(scheduler, 10)
        assert torch.equal(form.timesteps, probed.timesteps)
        of_x = form.A[:, 0, 0] + form.B[:, 0] * form.x0_from_x  # the probe says all by x and the output
        torch.testing.assert_close(probed.A[:, 0, 0], of_x, rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(probed.B[:, 0], form.B[:, 0] * form.x0_from_output, rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(probed.C[:, 0], form.C[:, 0], rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(probed.alpha, form.alpha, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(probed.sigma, form.sigma, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("begin", [0, 3, 9])
def test_rows_left_out_at_the_start_are_those_of_a_fresh_start_there(begin: int) -> None:
    """A solver that remembers begins anew: its first step is the first order's."""
    table = compile_scheduler(S.DPMSolverMultistepScheduler(timestep_spacing="trailing"), 10, begin=begin)
    form = compile_solver("dpmpp-2m", linear(), "eps", 10, begin=begin)
    assert table.timesteps.tolist() == form.timesteps.tolist()
    assert len(table) == 10 - begin
    draws = torch.Generator().manual_seed(1)
    x, noise = torch.randn(30, generator=draws).double(), torch.zeros(10 - begin, 30).double()
    torch.testing.assert_close(ours(table, x, noise)[-1], ours(form, x, noise)[-1], rtol=1e-3, atol=1e-3)


def test_eta_is_passed_on() -> None:
    scheduler = S.DDIMScheduler(clip_sample=False)
    assert not compile_scheduler(scheduler, 8).stochastic
    noisy, ddpm = compile_scheduler(scheduler, 8, eta=1.0), compile_scheduler(S.DDPMScheduler(clip_sample=False), 8)
    torch.testing.assert_close(noisy.C, ddpm.C, rtol=1e-4, atol=1e-4)
    with pytest.raises(SolverError, match="takes no eta"):
        compile_scheduler(S.HeunDiscreteScheduler(), 8, eta=1.0)


@pytest.mark.parametrize("registers", [0, 1, 3])
def test_the_least_memory_of_a_random_recurrence_is_found(registers: int) -> None:
    """Forms of a system whose order is known, hidden behind four registers that mirror each other."""
    rng = np.random.default_rng(0)
    steps, h = 14, 1 + registers
    A = rng.normal(size=(steps, h, h)) / np.sqrt(h)
    B, C = rng.normal(size=(2, steps, h))
    spread = rng.normal(size=(4 + h, h))  # more registers than it needs, all mixtures
    spread[0], spread[:, 0] = 0, 0
    spread[0, 0] = 1
    gather = np.linalg.pinv(spread)
    wide = memory.Recurrence(spread @ A @ gather, B @ spread.T, C @ spread.T)
    found = memory.recurrence(wide.forms())
    assert found.A.shape[1] == h
    np.testing.assert_allclose(found.forms(), wide.forms(), atol=1e-6 * np.abs(wide.forms()).max())


def test_a_setting_that_another_class_left_behind_means_nothing() -> None:
    """DDPM clips by default, and `from_config` hands its settings on to classes that have none such."""
    told = S.DDPMScheduler(clip_sample=True).config
    inherited = S.DPMSolverMultistepScheduler.from_config(told)
    assert inherited.config["clip_sample"]
    assert compile_scheduler(inherited, 12).clip == torch.inf
