"""Several processes at one job, as `torchrun` or accelerate's launcher starts them:

    torchrun --nproc-per-node 2 -m qx.main diffuse digits --device cpu
    accelerate launch --multi_gpu --num_processes 2 --main_process_port 0 -m qx.main diffuse digits --device cpu

Each prepares the same job and trains on its share of every batch (`generative.train`). The first one alone speaks and
writes; once the training is over the others leave, and it goes on as if it had always been alone. What one of them
hears (Ctrl-C) or finds (a run that stands there already) all of them act upon, at the same step. Their run directory is
on a disk that all of them see.

`accelerate launch --cpu --num_processes 2` is no such command: without MPI it starts one process (accelerate 1.15,
`commands/launch.py`, `simple_launcher`); `--multi_gpu` is its name for more than one, and `--device cpu` tells each of
them where to compute.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lab import console
from lab.run import Run, plain
from qx.limits import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator

SHARED = ("diffuse", "sft", "dpo", "reward", "resume")
"""Commands that processes can share."""
GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE")
"""Where a process reads that it is one of several."""


def processes() -> int:
    """How many were started."""
    return int(os.environ.get("WORLD_SIZE", 1))


def begin(command: str) -> None:
    """Before any work: all but the first process fall silent. Raises UsageError for a command that is not shared."""
    size = processes()
    if size == 1:
        asked = "MASTER_PORT" in os.environ and "RANK" not in os.environ and "ACCELERATE_USE_CPU" in os.environ
        if asked and command in SHARED:
            console.err.print(
                "[dim]one process: `accelerate launch --cpu` starts no more, whatever --num_processes says; "
                f"`torchrun --nproc-per-node 2 -m qx.main {console.escape(command)} ...` does",
                soft_wrap=True,
            )
        return
    if int(os.environ.get("RANK", 0)):
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # until the process ends
        console.err.quiet = True
    if command not in SHARED:
        raise UsageError(f"qx {command}: one process does this, and {size} were started; shared: {', '.join(SHARED)}")


def crew() -> Crew:
    """Those who prepared this job with each other. Raises UsageError where each prepared one of its own."""
    size = processes()
    if size == 1:
        return Crew(None)
    from accelerate import Accelerator
    from accelerate.state import is_initialized

    if not is_initialized():
        raise UsageError(f"this run trains in one process, and {size} were started")
    accelerator = Accelerator()  # the one that the job made: a program has one state
    if accelerator.num_processes != size:
        raise UsageError(
            f"{size} processes were started, and accelerate sees {accelerator.num_processes}; on CPUs: --device cpu"
        )
    return Crew(accelerator)


class Crew:
    """The processes of a job, as one of them sees them; a single one, too."""

    def __init__(self, accelerator: Accelerator | None) -> None:
        self._accelerator = accelerator
        if accelerator is not None:
            group = [torch.distributed.group.WORLD]
            atexit.register(_let_go, group)
        self.size: int = 1 if accelerator is None else accelerator.num_processes
        self.leads: bool = accelerator is None or accelerator.is_main_process

    def any(self, here: bool) -> bool:
        """Whether it is so in any of them. All must ask."""
        if self._accelerator is None:
            return here
        return bool(self._accelerator.reduce(torch.tensor(int(here), device=self._accelerator.device)).item())

    def alike(self, number: int) -> bool:
        """Whether all of them have the same number."""
        if self._accelerator is None:
            return True
        found = self._accelerator.gather(torch.tensor([number], device=self._accelerator.device))
        return bool((found == number).all())

    @contextmanager
    def of_one_mind(self) -> Iterator[None]:
        """What fails in here in one of them ends all: it says why, and the others leave with exit code 2."""
        try:
            yield
        except Exception:
            self.any(True)
            self.end_together()
            raise
        if self.any(False):
            self.end_together()
            raise SystemExit(2)

    def end_together(self) -> None:
        """All of them are about to end: none before the others, for a launcher that misses one kills the rest, who may
        not have said why.
        """
        if self._accelerator is not None:
            atexit.register(self._meet)

    def part(self) -> None:
        """The work that was shared is done: the first process goes on alone, the others end here with exit code 0.

        From here on every trainer is one of a single process, so that none waits for those who left.
        """
        if self._accelerator is None:
            return
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        cpu, precision = self._accelerator.device.type == "cpu", self._accelerator.mixed_precision
        self._meet()
        if not self.leads:
            raise SystemExit(0)
        for name in GROUP:
            os.environ.pop(name, None)
        AcceleratorState._reset_state(reset_partial_state=True)  # accelerate's own tests do so; there is no other way
        Accelerator(cpu=cpu, mixed_precision=precision)

    def _meet(self) -> None:
        assert self._accelerator is not None
        self._accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


def _let_go(group: list[torch.distributed.ProcessGroup | None]) -> None:
    """At the very end, after the model did.

    Whoever lets go of a group last joins its threads. Were that the model's reducer, it would do so holding the
    interpreter, for which gloo's thread may wait to drop the last meeting's tensor: both for ever (torch 2.13;
    pytorch/pytorch issue 56297). Python's own reference lets go of the interpreter first. A model that is reached by
    cycles alone is dropped before.
    """
    gc.collect()
    group.clear()


class Beside(Run):
    """A run directory, seen by a process that writes nothing."""

    def log(self, step: int, metrics: Mapping[str, Tensor | float]) -> dict[str, Any]:
        return {"step": step, **{name: plain(value) for name, value in metrics.items()}}

    def save(self, step: int, state: Any) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass

    def finish(self, result: Mapping[str, Any]) -> None:
        pass
