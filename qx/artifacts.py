"""What a run leaves behind: its agent, found again, and `qx export`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from jaxtyping import Shaped
from torch import Tensor

import envs
from lab import checkpoint, console, streams
from lab.run import Run, plain
from qx import runs
from qx.agents import TrainJob
from qx.jobs import WorkFailedError, device_of, take_up, write_result
from qx.usage import Answering, Common, UsageError, parse
from rl import saved
from rl.evaluate import judged

COMPARED = 64


@dataclass(frozen=True, kw_only=True)
class Export(Answering):
    """Write the policy of a run's best replica as an ONNX file, and run it once beside the original."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run of `qx train`, or a folder with a saved agent."""
    onnx: Path
    """The file to write."""


def learned(path: Path, common: Common) -> saved.Saved:
    """The agent of a run: what it saved at its end, else its newest checkpoint; or of a folder with a saved agent.

    Raises:
        UsageError: for a run of another command.
        RunError, CheckpointError, SavedError: where there is none.
    """
    for folder in (path, path / "agent"):
        if (folder / "agent.json").is_file():
            return saved.load(folder, device_of(common))
    run = Run.open(path)
    job = runs.reopen(run, Common(device=common.device)) if run.command == TrainJob.command else None
    if not isinstance(job, TrainJob):
        raise UsageError(f"{path}: made by `qx {run.command}`, expected a run of `qx train`")
    take_up(job, run, checkpoint.load(run.path / "checkpoint"))
    found = None
    if isinstance(job.world, envs.World):
        found = judged(job.agent, job.world, gamma=job.gamma, observation=job.options.agent.observation)
    return job.learned(() if found is None else plain(found[0]))


def export(args: Sequence[str]) -> dict[str, Any]:
    """`qx export RUN --onnx FILE`."""
    from rl.export import EQUAL, ExportError, onnx

    options = parse(Export, args, "qx export")
    if not options.onnx.resolve().parent.is_dir():
        raise UsageError(f"--onnx {options.onnx}: its folder does not exist")
    found = learned(options.run, dataclasses.replace(options, device="cpu"))
    try:
        difference = onnx(found, options.onnx, _observations(found))
    except ExportError as error:
        raise UsageError(str(error)) from error
    result = {
        "agent": found.name,
        "world": found.world.name,
        "replica": found.best + 1,
        "difference": difference,
    }
    if not difference <= EQUAL:
        away = f"it differs from the original by {difference:.2g}, expected {EQUAL} at most"
        raise WorkFailedError(f"{options.onnx}: not written, for {away}", result)
    result |= {"onnx": str(options.onnx), "bytes": options.onnx.stat().st_size}
    write_result(options, result)
    what = f"{found.name} on {found.world.name}, replica {found.best + 1}"
    console.out.print(f"{what}: {options.onnx}, {result['bytes']} bytes", markup=False, soft_wrap=True)
    console.out.print(f"run beside the original it differs by at most {difference:.1g}", markup=False)
    return result


def _observations(found: saved.Saved) -> Shaped[Tensor, "B ..."]:
    """What to compare on: states of a table, the first steps of chance in any other world."""
    if isinstance(found.world, envs.World):
        return found.world.observe(found.config.observation)[:COMPARED]
    worlds = found.world.simulate(streams.keys(0, "export", 4))
    seen, key = [worlds.reset()], streams.keys(0, "chance", 4)
    while len(seen) * worlds.n < COMPARED:
        step = worlds.step((streams.uniform(key, len(seen)) * worlds.actions).long())
        seen.append(worlds.reset(step.terminated | step.truncated))
    return torch.cat(seen)
