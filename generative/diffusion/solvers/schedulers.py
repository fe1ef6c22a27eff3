"""diffusers' schedulers by name, made for the noise that a given one was made for.

    compiler = Schedulers(pipeline.scheduler)
    compiler("unipc", 20, 0, None)          # UniPC with the betas, spacing and prediction of pipeline.scheduler
    compiler("default", 20, 0, None)        # pipeline.scheduler itself

A scheduler is made from the given one's configuration as diffusers' own `from_config` does, and compiled by `probe`.
What the probe finds says all by the network's bare output. Where it is known what that means, the table is told the
estimate of the clean data instead: the same samples, but now the estimate can be clipped. The step is then the one
that follows from an output that says the clipped estimate, as with our own solvers; diffusers clips in few of its
schedulers, and there not always so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import torch

from generative.diffusion.noise.denoiser import Prediction
from generative.diffusion.noise.schedule import NoiseSchedule, Schedule
from generative.diffusion.solvers.probe import compile_scheduler
from generative.diffusion.solvers.solver import SolverError
from generative.diffusion.solvers.table import SolverTable

DPM, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
KARRAS = {"use_karras_sigmas": True}
NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-karras": ("EulerDiscreteScheduler", KARRAS),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "heun-karras": ("HeunDiscreteScheduler", KARRAS),
    "kdpm2": ("KDPM2DiscreteScheduler", {}),
    "kdpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "lms-karras": ("LMSDiscreteScheduler", KARRAS),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": False}),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}),
    "ipndm": ("IPNDMScheduler", {}),
    "deis": ("DEISMultistepScheduler", {}),
    "dpmpp-2m": (DPM, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
    "dpmpp-2m-karras": (DPM, {"algorithm_type": "dpmsolver++", "solver_order": 2, **KARRAS}),
    "dpmpp-3m": (DPM, {"algorithm_type": "dpmsolver++", "solver_order": 3}),
    "dpmpp-2m-sde": (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2}),
    "dpmpp-2m-sde-karras": (DPM, {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, **KARRAS}),
    "dpmpp-2s": (SINGLE, {"algorithm_type": "dpmsolver++", "solver_order": 2, "lower_order_final": True}),
    "dpmpp-3s": (SINGLE, {"algorithm_type": "dpmsolver++", "solver_order": 3, "lower_order_final": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "sa": ("SASolverScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "edm-euler": ("EDMEulerScheduler", {}),
    "edm-dpmpp-2m": ("EDMDPMSolverMultistepScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "flow-heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "flow-lcm": ("FlowMatchLCMScheduler", {}),
}
"""Name -> (class, what differs from the given scheduler's configuration)."""

# By the beginning of a class's name; the rest is told betas and prediction.
FAMILIES = {"EDM": "EDM", "FlowMatch": "flow matching", "IPNDM": "the noise levels of IPNDM alone"}
# Those whose rows all ask at the level that the sample then stands at, and take the output as `prediction_type` says.
ESTIMATING = {
    *("DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"),
    *("HeunDiscreteScheduler", "LMSDiscreteScheduler", "LCMScheduler", "TCDScheduler", "DEISMultistepScheduler"),
    *(DPM, SINGLE, "UniPCMultistepScheduler", "SASolverScheduler"),
}
PREDICTIONS = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}


class Schedulers:
    """Compiles diffusers' solvers by name.

    Args:
        scheduler: what the network came with; its configuration says of noise and prediction what the others need.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def __call__(self, name: str, steps: int, begin: int, eta: float | None) -> SolverTable:
        """The table of the solver called `name` (see `NAMES`), or "default" for the given scheduler itself.

        `begin` counts steps; a solver that asks the network twice a step leaves out twice as many rows.

        Raises:
            SolverError: when there is no such solver, it fits other noise, or `probe` refuses it; with that reason.
        """
        scheduler = self.scheduler if name == "default" else self._made(name)
        most = int(scheduler.config.get("num_train_timesteps") or 1000)
        if not 1 <= steps <= most:
            raise SolverError(f"steps is {steps}: {name!r} was trained with {most} timesteps, so from 1 to {most} fit")
        table = compile_scheduler(scheduler, steps, begin=begin * getattr(scheduler, "order", 1), eta=eta)
        return table if type(scheduler).__name__ not in ESTIMATING else estimating(table, scheduler.config)

    def _made(self, name: str) -> Any:
        import diffusers  # seconds to load, and needed by who names one of these solvers alone

        if name not in NAMES:
            raise unknown(name, ["default", *NAMES])
        kind, changes = NAMES[name]
        given = type(self.scheduler).__name__
        if _family(kind) != _family(given):
            fitting = ", ".join(other for other, (its, _) in NAMES.items() if _family(its) == _family(given))
            raise SolverError(f"solver {name!r} is for {_family(kind)}, but {given} for {_family(given)}: {fitting}")
        return getattr(diffusers, kind).from_config(self.scheduler.config, **changes)


def estimating(table: SolverTable, config: Any) -> SolverTable:
    """The same steps with m the estimate of x_0 in place of the output, which must mean what `prediction_type` says.

    Of o = (m - p x) / q: A' = A - B p / q in the column of x, B' = B / q, with p and q for any alpha and sigma, as the
    schedulers that do not keep alpha^2 + sigma^2 at 1 have it. The table itself where it is so already, or q is 0.
    """
    alpha, sigma = table.alpha, table.sigma
    norm = (alpha**2 + sigma**2).sqrt()
    known = {
        "epsilon": (1 / alpha, -sigma / alpha),
        "sample": (0 * alpha, 0 * alpha + 1),
        "v_prediction": (alpha / norm**2, -sigma / norm),
    }
    p, q = known.get(config.get("prediction_type"), (alpha, 0 * alpha))
    if table.estimate or not bool((p.isfinite() & q.isfinite() & (q != 0)).all()):
        return table
    B = table.B / q[:, None]
    A = table.A.clone()
    A[:, :, 0] -= B * p[:, None]
    return replace(table, x0_from_x=p, x0_from_output=q, A=A, B=B, estimate=True)


def scheduler_of(schedule: Schedule, prediction: Prediction) -> Any:
    """A diffusers DDPMScheduler with "trailing" steps and no clip, for this noise and prediction.

    Raises:
        SolverError: when diffusers has no such prediction, or no betas give the schedule's levels.
    """
    import diffusers

    if not isinstance(schedule, NoiseSchedule) or prediction not in PREDICTIONS:
        raise SolverError(f"diffusers' solvers are not for prediction {prediction!r} on a {type(schedule).__name__}")
    share = schedule.alphas**2  # alpha_bar
    betas = 1 - share / torch.cat([torch.ones_like(share[:1]), share[:-1]])
    made = diffusers.DDPMScheduler(
        num_train_timesteps=len(share),
        trained_betas=betas.tolist(),
        prediction_type=PREDICTIONS[prediction],
        clip_sample=False,
        timestep_spacing="trailing",
    )
    if not torch.allclose(made.alphas_cumprod.double(), share, rtol=1e-3, atol=1e-9):
        raise SolverError("diffusers' float32 does not hold this noise schedule to a thousandth")
    return made


def unknown(name: str, known: Sequence[str]) -> SolverError:
    """The error for a name that is none of those known."""
    near = get_close_matches(name, known, 1, 0.0)[0]
    return SolverError(f"solver {name!r} is unknown; did you mean {near!r}? (known: {', '.join(known)})")


def _family(kind: str) -> str:
    return next((family for start, family in FAMILIES.items() if kind.startswith(start)), "discrete noise levels")
