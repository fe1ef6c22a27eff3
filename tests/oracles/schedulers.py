"""diffusers' schedulers and its own loop over them, fed with noise that the caller knows."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import diffusers
import torch
from torch import Tensor

S = diffusers

LINEAR: list[tuple[Any, dict[str, Any], int]] = [
    (S.DDPMScheduler, {}, 0),
    (S.DDPMScheduler, {"clip_sample": False, "variance_type": "fixed_large"}, 0),
    (S.DDPMParallelScheduler, {}, 0),
    (S.DDIMScheduler, {}, 0),
    (
        S.DDIMScheduler,
        {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True},
        0,
    ),
    (S.DDIMScheduler, {"prediction_type": "v_prediction", "clip_sample_range": 2.0}, 0),
    (S.DDIMParallelScheduler, {}, 0),
    (S.DDIMInverseScheduler, {}, 0),
    (S.CogVideoXDDIMScheduler, {}, 0),
    (S.EulerDiscreteScheduler, {}, 0),
    (S.EulerDiscreteScheduler, {"use_karras_sigmas": True, "timestep_spacing": "trailing"}, 0),
    (S.EulerAncestralDiscreteScheduler, {}, 0),
    (S.HeunDiscreteScheduler, {}, 1),
    (S.KDPM2DiscreteScheduler, {}, 1),
    (S.KDPM2AncestralDiscreteScheduler, {}, 1),
    (S.LMSDiscreteScheduler, {}, 3),
    (S.PNDMScheduler, {}, 4),
    (S.PNDMScheduler, {"skip_prk_steps": True}, 3),
    (S.IPNDMScheduler, {}, 3),
    (S.DEISMultistepScheduler, {}, 1),
    (S.DEISMultistepScheduler, {"solver_order": 3}, 2),
    (S.DPMSolverMultistepScheduler, {}, 1),
    (S.DPMSolverMultistepScheduler, {"solver_order": 3, "use_karras_sigmas": True}, 2),
    (S.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, 1),
    (S.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}, 1),
    (S.DPMSolverMultistepInverseScheduler, {}, 1),
    (S.DPMSolverSinglestepScheduler, {}, 1),
    (S.DPMSolverSinglestepScheduler, {"solver_order": 3}, 1),
    (S.UniPCMultistepScheduler, {}, 2),
    (S.UniPCMultistepScheduler, {"solver_order": 3, "prediction_type": "v_prediction"}, 3),
    (S.SASolverScheduler, {}, 2),
    (S.LCMScheduler, {}, 0),
    (S.TCDScheduler, {}, 0),
    (S.UnCLIPScheduler, {}, 0),
    (S.CMStochasticIterativeScheduler, {}, 0),
    (S.EDMEulerScheduler, {}, 0),
    (S.EDMDPMSolverMultistepScheduler, {}, 1),
    (S.FlowMatchEulerDiscreteScheduler, {"shift": 3.0}, 0),
    (S.FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}, 0),
    (S.FlowMatchHeunDiscreteScheduler, {}, 1),
    (S.FlowMatchLCMScheduler, {}, 0),
    (S.FlowMapEulerDiscreteScheduler, {}, 0),
    (S.LTXEulerAncestralRFScheduler, {}, 0),
    (S.MiniMaxH3Scheduler, {}, 0),
]
"""(class, arguments, registers of 12 steps) of all that compile."""


def loop(
    scheduler: Any,
    network: Callable[[Tensor, float], Tensor],
    x: Tensor,
    noise: Tensor,
    *,
    begin: int = 0,
    after: Callable[[int, Tensor], Tensor] = lambda k, x: x,
    **told: Any,
) -> Tensor:
    """Every sample on the way [S, *shape], from x [*shape]; the scheduler's timesteps are set.

    noise [S, *shape] is what it draws at each step, if it draws; `begin` rows are left out; `after` is done to a sample
    between steps; `told` goes to its `step`.
    """
    module = importlib.import_module(type(scheduler).__module__)
    path, sample = [], x[None]
    if begin and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    for k, t in enumerate(scheduler.timesteps[begin:]):
        seen = scheduler.scale_model_input(sample, t) if hasattr(scheduler, "scale_model_input") else sample
        output = network(seen.to(x.dtype), float(t))
        with mock.patch.object(module, "randn_tensor", lambda *_, k=k, **__: noise[k][None], create=True):
            sample = scheduler.step(output, t, sample, **told).prev_sample.to(x.dtype)
        sample = after(k, sample)
        path.append(sample[0])
    return torch.stack(path)
