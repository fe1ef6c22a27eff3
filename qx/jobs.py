"""What every long job shares: a run directory, a progress bar, checkpoints, and going on after a kill.

A job is prepared from its arguments before anything is written, so that a wrong request leaves no trace. Then its
trainer is driven to the end, and the job says what it found. `resume` does the same from the newest checkpoint.
Several processes may drive one job (`qx.processes`): all of them pass through here, and one alone comes back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float64
from torch import Tensor

from lab import checkpoint, console
from lab import run as runs
from lab.run import Run, RunError, next_free, plain, write_json
from qx.interrupts import until_at_rest
from qx.processes import Beside, Crew, crew, processes
from qx.usage import Common, Lasting, UsageError

MUST_BE_FINITE = ("loss", "gradient_norm", "td_error")
"""Metrics with such an end to their name stop a run when they are no number."""


class WorkFailedError(RuntimeError):
    """The work itself failed: exit code 1; `result` is what was done nevertheless, for --json."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class Steps(Protocol):
    """A training loop as this module sees it: at rest at every yield."""

    @property
    def step(self) -> int:
        """Where `load_state_dict` of its `state_dict` goes on: the step yielded, or the last it can go back to."""
        ...

    def run(self, until: int | None = None) -> Iterator[tuple[int, Mapping[str, Tensor]]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Job(Protocol):
    """One prepared piece of long work."""

    @property
    def command(self) -> str: ...

    @property
    def name(self) -> str:
        """Of the run directory, when none is given."""
        ...

    @property
    def total(self) -> int:
        """The step to train to."""
        ...

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Files and folders that the run reads; it does not go on when they have changed."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def trainer(self) -> Steps: ...

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics to show beside the progress bar."""
        ...

    def watch(self) -> Mapping[str, Tensor]:
        """Numbers worth some work, asked for some 40 times a run; changes nothing."""
        ...

    def evaluate(self) -> dict[str, Any]:
        """What was learned: the result that `--json` prints."""
        ...

    def report(self, run: Run, result: Mapping[str, Any]) -> None:
        """Write what was made and `report.png` into the run directory."""
        ...

    def summary(self, result: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The result in words: name and value, a line each."""
        ...


@runtime_checkable
class Showing(Protocol):
    """A job that also draws what it learns, on the way."""

    def look(self, run: Run, step: int) -> None:
        """Asked after every step, of the process that writes: leave a picture in the run where one is due; changes
        nothing else.
        """
        ...


def device_of(common: Common) -> torch.device:
    """The device asked for. Raises UsageError when CUDA is wanted and not there."""
    if common.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine has no CUDA device that torch can see; use --device cpu")
    return torch.device("cuda" if common.device != "cpu" and torch.cuda.is_available() else "cpu")


def vacant(common: Common) -> None:
    """Before work that no checkpoint keeps. Raises RunError where --out is taken; of several processes `start` says
    it, when all of them are there.
    """
    if common.out is not None and processes() == 1:
        runs.vacant(common.out)


def start(job: Job, config: dict[str, Any], common: Lasting) -> tuple[Run, dict[str, Any]]:
    """Make the run directory and do the job; returns the run and its result."""
    path, those = common.out or next_free(Path("runs"), f"{job.command}-{job.name}"), crew()
    about: dict[str, Any] = {"device": job.device.type, "inputs": job.inputs, "processes": those.size}
    with those.of_one_mind():
        if those.leads:
            run = Run.create(path, job.command, config, common.seed, **about)
        else:
            run = Beside(path, {"command": job.command, "config": config, "seed": common.seed})
    return run, _done(job, run, those, common.save_every)


def carry_on(job: Job, run: Run, save_every: float) -> dict[str, Any]:
    """Drive the job to its end, from the newest checkpoint where there is one, and write what it found."""
    those, begun = crew(), run.header.get("processes", 1)
    if begun != those.size:
        console.err.print(f"[dim]begun by {begun}, the run does not go on bit for bit by {those.size} processes")
    return _done(job, run if those.leads else Beside(run.path, run.header), those, save_every)


def _done(job: Job, run: Run, those: Crew, save_every: float) -> dict[str, Any]:
    """The result of the job. Of several processes the first alone returns; the others end when all are trained."""
    with those.of_one_mind():
        found = run.restore()
        if found is not None:
            take_up(job, run, found)
        run.rewind(0 if found is None else found.step)
    with those.of_one_mind():
        if not those.alike(job.trainer.step):
            raise RunError(
                f"{run.path}: its processes see different checkpoints; expected a disk that all of them share"
            )
    began = time.monotonic()
    try:
        drive(job, run, save_every, those)
    except KeyboardInterrupt:
        those.end_together()
        raise WorkFailedError(f"interrupted; go on with `qx resume {run.path}`") from None
    except WorkFailedError:
        those.end_together()
        raise
    those.part()
    try:
        result = plain({**job.evaluate(), "seconds": round(time.monotonic() - began, 2), "run": str(run.path)})
        job.report(run, result)
        run.finish(result)
    except KeyboardInterrupt:
        raise WorkFailedError(f"interrupted; it has learned, `qx resume {run.path}` writes the report") from None
    return dict(result)


def take_up(job: Job, run: Run, found: checkpoint.Checkpoint) -> None:
    """Put the job where the checkpoint was taken. Raises CheckpointError for one of another model than the job's."""
    try:
        job.trainer.load_state_dict(found.state)
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise checkpoint.CheckpointError(
            f"{run.path}: its checkpoint of step {found.step} does not fit what this version makes of its config.json "
            f"({reason})"
        ) from None


def finished(run: Path) -> Path:
    """The path itself. Raises UsageError for a run that made nothing yet, because it is not finished."""
    header = run / "config.json"
    if header.is_file() and not (run / "result.json").exists() and '"command"' in header.read_text():
        raise UsageError(f"{run}: this run is not finished; `qx resume {run}` goes on with it")
    return run


def write_result(common: Common, result: Mapping[str, Any]) -> None:
    """`result.json` in --out, where one is given."""
    if common.out is not None:
        common.out.mkdir(parents=True, exist_ok=True)
        write_json(common.out / "result.json", dict(result))


def show(job: Job, result: Mapping[str, Any]) -> None:
    """The result in the terminal."""
    for name, value in job.summary(result):
        console.out.print(f"[dim]{name:>16}[/]  {console.escape(value)}", soft_wrap=True)


def drive(job: Job, run: Run, save_every: float, those: Crew) -> None:
    """Train to the end: log some 400 times, checkpoint now and then and at the end, stop at a loss that is NaN.

    Raises:
        KeyboardInterrupt: after Ctrl-C, with a checkpoint of where the loop came to rest.
        WorkFailedError: for a loss that is NaN, in all processes alike, because the metrics are those of all.
    """
    every, watched = max(1, job.total // 400), max(1, job.total // 40)
    trainer, saved, previous = job.trainer, time.monotonic(), job.trainer.step
    label = (
        f"{job.command} {job.name}" if console.err.width >= console.WIDE or not console.err.is_terminal else job.name
    )
    with until_at_rest(alone=those.size == 1) as interrupted, console.progress(label, job.total, previous) as bar:
        for step, metrics in trainer.run():
            _guard(run, step, metrics)  # of every report, so that nothing is saved after a loss that was lost
            watch = step // watched != previous // watched or step == job.total
            if watch or step // every != previous // every:
                if watch:
                    metrics = {**metrics, **job.watch()}
                line = run.log(step, metrics)
                told = {name.rpartition("/")[2]: line[name] for name in job.headline if name in line}
                bar.update(step, "  ".join(f"{name} {_mean(value)}" for name, value in told.items()))
            if those.leads and isinstance(job, Showing):
                job.look(run, step)
            stop = those.any(interrupted())
            if stop or (time.monotonic() - saved > save_every and step < job.total):
                run.save(trainer.step, trainer.state_dict())
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt
            previous = step
        run.save(trainer.step, trainer.state_dict())
        if those.any(interrupted()):
            raise KeyboardInterrupt


def _guard(run: Run, step: int, metrics: Mapping[str, Tensor]) -> None:
    """Stop where a loss is no number.

    Raises:
        WorkFailedError: with the step, the replicas, every metric over all of them, and where a resume would begin.
    """
    watched = {name: value for name, value in metrics.items() if name.endswith(MUST_BE_FINITE)}
    bad = [name for name, value in watched.items() if not bool(torch.as_tensor(value).isfinite().all())]
    if not bad:
        return
    numbers = {name: torch.as_tensor(value, dtype=torch.float64).cpu().view(-1) for name, value in metrics.items()}
    name, value = bad[0], numbers[bad[0]]
    lost = (~value.isfinite()).nonzero().flatten().tolist()
    known = checkpoint.steps(run.path / "checkpoint")
    found: dict[str, Any] = {"failed": name, "step": step, "replicas": lost, "checkpoint": known[-1] if known else None}
    spread = {one: _spread(each) for one, each in numbers.items()}
    found["metrics"] = {one: dict(zip(("mean", "min", "max"), three, strict=True)) for one, three in spread.items()}
    which = f" in replica{'s' * (len(lost) > 1)} {', '.join(str(r + 1) for r in lost)} of {len(value)}"
    back = f"step {known[-1]}" if known else "the beginning, for there is no checkpoint yet"
    lines = [
        f"{name} is not finite at step {step}{which if len(value) > 1 else ''}",
        *(f"  {one:<16} mean {m:.4g}   least {low:.4g}   most {high:.4g}" for one, (m, low, high) in spread.items()),
        f"  the last good state: `qx resume {run.path}` would begin again from {back}",
    ]
    raise WorkFailedError("\n".join(lines), plain(found | {"run": str(run.path)}))


def _spread(value: Float64[Tensor, "R"]) -> tuple[float, float, float]:
    """Mean, least and most over the replicas; nan where any of them is."""
    return float(value.mean()), float(value.min()), float(value.max())


def _mean(value: Any) -> str:
    numbers = [v for v in (value if isinstance(value, list) else [value]) if v is not None and math.isfinite(v)]
    return f"{sum(numbers) / len(numbers):.3g}" if numbers else "-"
