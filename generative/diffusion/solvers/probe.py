"""Any linear diffusers scheduler as a `SolverTable`, found by asking it, not by reading it.

    table = compile_scheduler(diffusers.UniPCMultistepScheduler(), 20)

The scheduler is run once, in float64, on basis vectors: pixel 0 of the sample is 1 and all others 0, pixel 1 + k is 1
in the k-th output of the network, and noise is another unit vector for each draw. What comes out after k steps are the
numbers by which x_k depends on all that came in, and `memory` makes of them the recurrence with the least registers.

A scheduler that clips its estimate of x_0 bends in one place: x' = a x + b clip(r) + c z + d o with r = p x + q o.
Small inputs pass below the bound and give a + b p and b q + d, large ones far above it and give a, d and b.

What comes out is then tried on random numbers beside the scheduler itself. A scheduler that is not linear fails there,
and is refused with the step and by how much it differs.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from generative.diffusion.solvers import memory
from generative.diffusion.solvers.solver import SolverError
from generative.diffusion.solvers.table import SolverTable, step

AGREE = 1e-4
"""Largest difference from the scheduler's own step, of the largest pixel: some compute in float32."""
SMALL, LARGE = 1e-6, 1e6  # inputs far below and far above any bound on x_0
HARD_CLIP = {"CMStochasticIterativeScheduler": "clip_denoised"}  # their bound is 1, and no setting


def compile_scheduler(
    scheduler: Any, steps: int, *, begin: int = 0, eta: float | None = None, **timesteps: Any
) -> SolverTable:
    """The table of a diffusers scheduler with `steps` inference steps.

    Args:
        scheduler: an instance; it is copied, not used.
        steps: as its `set_timesteps` takes them. Some ask the network more than once a step: the table has more rows.
        begin: rows to leave out at the start, for an image that is noised to there (`table.alpha`, `table.sigma`).
        eta: how much noise its `step` adds, where it takes that; by default its own default.
        timesteps: whatever else `set_timesteps` takes.

    Raises:
        SolverError: when its `step` has another form, it is not linear, draws noise more than once a step, or refuses
            these steps; with that reason.
    """
    return _Probe(scheduler, steps, begin, {} if eta is None else {"eta": eta}, timesteps).table()


class _Probe:
    """One scheduler, ready to be run as often as needed."""

    def __init__(self, scheduler: Any, steps: int, begin: int, told: dict[str, Any], timesteps: dict[str, Any]) -> None:
        self.kind, self.scheduler, self.begin, self.told = type(scheduler).__name__, scheduler, begin, told
        self.steps, self.asked = steps, timesteps
        parameters = inspect.signature(scheduler.step).parameters if hasattr(scheduler, "step") else {}
        needed = [name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        if needed != ["model_output", "timestep", "sample"]:
            raise self.refused(f"its step takes ({', '.join(needed)}); expected (model_output, timestep, sample)")
        if any(word not in parameters for word in told):
            raise self.refused("its step takes no eta")
        self.draws = "generator" in parameters
        self.at_rest = self.fresh()
        self.initial = float(getattr(self.at_rest, "init_noise_sigma", 1.0))
        self.times = self.at_rest.timesteps[begin:]
        if not 0 <= begin < len(self.at_rest.timesteps):
            raise self.refused(f"begin is {begin}; it has rows 0 to {len(self.at_rest.timesteps) - 1}")

    def table(self) -> SolverTable:
        settings = inspect.signature(type(self.scheduler).__init__).parameters
        # what another class was made with is kept in the configuration, and means nothing to this one
        config = {name: value for name, value in self.scheduler.config.items() if name in settings}
        if config.get("thresholding"):
            raise self.refused("dynamic thresholding is not linear; make it with thresholding=False")
        clips = config.get("clip_sample") or config.get(HARD_CLIP.get(self.kind, ""))
        try:
            found = self._clipped(float(config.get("clip_sample_range") or 1.0)) if clips else self._linear()
            self._try(found)
        except SolverError:
            raise
        except Exception as error:  # whatever a step of that form may run into: it is not ours
            raise self.refused(f"its step fails with {type(error).__name__}: {error}") from error
        return found

    def _linear(self) -> SolverTable:
        steps = len(self.times)
        eye = torch.eye(1 + 2 * steps, dtype=torch.float64)
        path, scale = self.run(eye[0], eye[1 : 1 + steps], eye[1 + steps :])
        forms = torch.cat([eye[:1], path])
        forms[:, 0] *= self.initial  # so that all that comes in is of the size of a noise
        found = memory.recurrence(forms.numpy())
        A, B, C = (torch.from_numpy(part) for part in (found.A, found.B, found.C))
        zero = torch.zeros(steps, dtype=torch.float64)
        return replace(self._made(scale, zero, zero + 1, A, B, C, torch.zeros_like(B)), estimate=False)

    def _clipped(self, bound: float) -> SolverTable:
        """Every step by itself: a scheduler that clips and remembers is refused by `_try`."""
        steps = len(self.times)
        x = torch.tensor([SMALL, 0, LARGE, 2 * LARGE, 0, 0, 0], dtype=torch.float64)
        o = torch.tensor([0, SMALL, 0, 0, LARGE, 2 * LARGE, 0], dtype=torch.float64).expand(steps, -1)
        z = torch.tensor([0, 0, 0, 0, 0, 0, 1], dtype=torch.float64).expand(steps, -1)
        path, scale = self.run(x, o, z, again=True)
        rows = []
        for below_x, below_o, far_x, further_x, far_o, further_o, c in path.tolist():
            a, d = (further_x - far_x) / LARGE, (further_o - far_o) / LARGE
            # r may be told with either sign, b clip(r) being odd; and one of p and q may be 0
            b = max(abs(2 * far_o - further_o), abs(2 * far_x - further_x)) / bound
            p, q = ((below_x / SMALL - a) / b, (below_o / SMALL - d) / b) if b > 0 else (0.0, 1.0)
            rows.append((p, q, a, b, c, d))
        p, q, a, b, c, d = torch.tensor(rows, dtype=torch.float64).unbind(1)
        return replace(self._made(scale, p, q, a[:, None, None], b[:, None], c[:, None], d[:, None]), clip=bound)

    def _made(self, scale: Tensor, p: Tensor, q: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> SolverTable:
        times = torch.tensor([float(t) for t in self.times], dtype=torch.float64)
        return SolverTable(times, scale, p, q, A, B, C, D, *self._levels(), initial_scale=self.initial)

    def _levels(self) -> tuple[Float64[Tensor, "S"], Float64[Tensor, "S"]]:
        """What a clean image and noise are mixed by before each row, by its own account; nan where it gives none."""
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64)

        def mixed(image: Tensor, noise: Tensor, row: int, t: Tensor) -> float:
            own = copy.deepcopy(self.at_rest)  # for some remember where they were asked
            if hasattr(own, "set_begin_index"):
                own.set_begin_index(self.begin + row)  # and say the level where they begin, whatever the timestep
            if hasattr(own, "add_noise"):
                return float(own.add_noise(image, noise, t[None]))
            return float(own.scale_noise(image, t[None], noise)) if hasattr(own, "scale_noise") else torch.nan

        pairs = [(mixed(one, 0 * one, k, t), mixed(0 * one, one, k, t)) for k, t in enumerate(self.times)]
        alpha, sigma = torch.tensor(pairs, dtype=torch.float64).unbind(1)
        return alpha, sigma

    def _try(self, found: SolverTable) -> None:
        """Raise SolverError unless the scheduler goes where the table goes, on numbers of no pattern."""
        steps, pixels = len(self.times), 64
        random = torch.Generator().manual_seed(0)
        x = found.initial_scale * torch.randn(pixels, generator=random, dtype=torch.float64)
        o, z = torch.randn(2, steps, pixels, generator=random, dtype=torch.float64)
        theirs, _ = self.run(x, o, z)
        h = torch.zeros(1, 1 + found.registers, pixels, dtype=torch.float64)
        h[0, 0] = x
        for k in range(steps):
            h = step(found.rows(torch.tensor([k])), h, o[k : k + 1], z[k : k + 1], torch.tensor([found.clip]).double())
            apart = ((h[0, 0] - theirs[k]).abs().max() / theirs[k].abs().max().clamp(min=1e-12)).item()
            if not apart <= AGREE:
                raise self.refused(f"it is not linear: step {k} of {steps} is off by {apart:.2g} of the largest pixel")

    def run(
        self, x: Float64[Tensor, "P"], o: Float64[Tensor, "S P"], z: Float64[Tensor, "S P"], *, again: bool = False
    ) -> tuple[Float64[Tensor, "S P"], Float64[Tensor, "S"]]:
        """Every sample by the scheduler's own steps, and what it scales the network's input by.

        The k-th output is o[k], the noise z[k] wherever it draws. `again`: every step begins at x.
        """
        scheduler, scales, path = self.fresh(), [], []
        sample = x.view(1, 1, 1, -1)
        with _noise_of(scheduler, self) as put:
            for k, t in enumerate(self.times):
                put(z[k].view_as(sample))
                one = torch.ones_like(sample)
                scales.append(scheduler.scale_model_input(one, t) if hasattr(scheduler, "scale_model_input") else one)
                after = scheduler.step(o[k].view_as(sample), t, sample, **self.told).prev_sample.double()
                path.append(after.flatten())
                sample = sample if again else after
        bad = next((k for k, x in enumerate(path) if not x.isfinite().all()), None)
        if bad is not None:
            raise self.refused(f"its sample is not finite after step {bad} of {len(path)}")
        return torch.stack(path), torch.stack([scale.double().flatten()[0] for scale in scales])

    def fresh(self) -> Any:
        """A copy with its timesteps set, before the first step."""
        scheduler = copy.deepcopy(self.scheduler)
        try:
            scheduler.set_timesteps(self.steps, **self.asked)
        except Exception as error:  # of any kind, and with its own words
            raise self.refused(f"it takes no {self.steps} steps: {error or type(error).__name__}") from error
        if self.begin and hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(self.begin)
        return scheduler

    def refused(self, why: str) -> SolverError:
        return SolverError(f"{self.kind} is no solver table: {why}")


@contextmanager
def _noise_of(scheduler: Any, probe: _Probe) -> Iterator[Callable[[Tensor], None]]:
    """While it lasts, what was put last is the noise that the scheduler draws, once."""
    module = importlib.import_module(type(scheduler).__module__)
    put: list[Tensor] = []

    def draw(shape: Any, *_: Any, **__: Any) -> Tensor:
        if not put:
            raise probe.refused("it draws noise more than once a step")
        return put.pop().expand(shape)

    before = getattr(module, "randn_tensor", None)
    if before is not None:
        module.randn_tensor = draw  # type: ignore[attr-defined]
    try:
        yield lambda z: put.__setitem__(slice(None), [z])
    finally:
        if before is not None:
            module.randn_tensor = before  # type: ignore[attr-defined]
