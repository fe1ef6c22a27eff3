"""`qx resume` and `qx eval`: go on with a run, or ask again what it learned."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from lab import checkpoint, console
from lab.run import Run, plain
from qx import agents, diffusion, dpo, reward, sft
from qx.jobs import Job, carry_on, finished, show, take_up, write_result
from qx.usage import Common, Lasting, UsageError, parse

JOBS: dict[str, Callable[[Run, Common], Job]] = {
    "train": agents.reopen,
    "diffuse": diffusion.reopen,
    "sft": sft.reopen,
    "dpo": dpo.reopen,
    "reward": reward.reopen,
}
"""How each command's job is prepared again from its run directory."""


@dataclass(frozen=True, kw_only=True)
class Resume(Lasting):
    """Go on with a run that was interrupted or killed; it ends as if nothing had happened, bit for bit on the CPU."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory. Its own seed and configuration hold."""


@dataclass(frozen=True, kw_only=True)
class Evaluate(Common):
    """Evaluate what a run trained, from its newest checkpoint."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """The run directory."""


def resume(args: Sequence[str]) -> dict[str, Any]:
    """`qx resume RUN`."""
    options = parse(Resume, args, "qx resume")
    if options.out is not None:
        raise UsageError(f"--out {options.out}: a run goes on in its own directory, {options.run}")
    run = Run.open(options.run)
    job = reopen(run, options)
    finished = (run.path / "result.json").exists()
    result = carry_on(job, run, options.save_every)
    if finished:
        console.err.print(f"[dim]the run in {run.path} was finished already; its result was computed again")
    show(job, result)
    return result


def evaluate(args: Sequence[str]) -> dict[str, Any]:
    """`qx eval RUN`."""
    options = parse(Evaluate, args, "qx eval")
    run = Run.open(options.run)
    job = reopen(run, options)
    if not checkpoint.steps(run.path / "checkpoint"):
        finished(run.path)
    found = checkpoint.load(run.path / "checkpoint")
    take_up(job, run, found)
    if found.step < job.total:
        console.err.print(
            f"[dim]the run stopped at step {found.step} of {job.total}; `qx resume {run.path}` finishes it"
        )
    result = plain({**job.evaluate(), "run": str(run.path), "step": found.step})
    write_result(options, result)
    show(job, result)
    return result


def reopen(run: Run, common: Common) -> Job:
    """The job that made this run. Raises UsageError for a command that leaves nothing to go on with."""
    if run.command not in JOBS:
        raise UsageError(f"{run.path}: made by `qx {run.command}`, which trains nothing; expected {', '.join(JOBS)}")
    if common.seed not in (0, run.seed):
        raise UsageError(f"--seed {common.seed}: the run in {run.path} has its own seed, {run.seed}")
    device = run.header["device"] if common.device == "auto" else common.device
    if device != run.header["device"]:
        console.err.print(f"[dim]the run was on {run.header['device']}: on {device} it does not go on bit for bit")
    torch.set_num_threads(run.header["threads"])  # sums are rounded in another order on another number of threads
    try:
        return JOBS[run.command](run, dataclasses.replace(common, device=device))
    except (KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{run.path / 'config.json'}: its configuration does not fit this version ({reason})"
        ) from None
