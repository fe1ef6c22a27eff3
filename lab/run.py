"""The run directory: what was asked, what was measured, and where to go on from.

    RUN/config.json       format version, command, full configuration, seed, digests of inputs, versions, commit
    RUN/metrics.jsonl     one JSON object a logged step: {"step": 100, "return": [1.0, 0.8]}; lists are replicas
    RUN/tensorboard/      the same numbers for TensorBoard (replicas averaged)
    RUN/checkpoint/       see `lab.checkpoint`
    RUN/result.json       what the command found, written at its end
    RUN/report.png        and pictures

A run is a function of its config and seed, so `config.json` and the newest checkpoint are all that a resume needs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lab import checkpoint

FORMAT = 1
KEYS = {"command": str, "config": dict, "seed": int, "device": str, "inputs": dict, "threads": int}
"""What `config.json` must hold beside its format."""
RECORDED = ("quincunx", "torch", "numpy", "gymnasium", "diffusers", "transformers", "accelerate")


class RunError(ValueError):
    """A run directory is missing, taken, damaged or of another format; the message names it and the way out."""


class Run:
    """One run directory, new (`create`) or found (`open`)."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        self.path, self.header = path, header
        self.command: str = header["command"]
        self.config: dict[str, Any] = header["config"]
        self.seed: int = header["seed"]
        self._board: Any = None

    @classmethod
    def create(
        cls,
        path: Path,
        command: str,
        config: dict[str, Any],
        seed: int,
        *,
        device: str = "cpu",
        inputs: Sequence[Path] = (),
        processes: int = 1,
    ) -> Run:
        """Make the directory and write `config.json`, with digests of the files that the run reads.

        Raises RunError where a run stands already.
        """
        vacant(path)
        path.mkdir(parents=True, exist_ok=True)
        header = {
            "format": FORMAT,
            "command": command,
            "seed": seed,
            "device": device,
            "processes": processes,
            "config": config,
            "inputs": {str(file.resolve()): digest(file) for file in inputs},
            **_circumstances(),
        }
        write_json(path / "config.json", header)
        return cls(path, header)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read a run directory. Raises RunError when it is none, or of another format version."""
        file = path / "config.json"
        if not file.is_file():
            raise RunError(f"{path}: no run here (it would hold config.json)")
        try:
            header = json.loads(file.read_bytes())
        except ValueError as error:
            raise RunError(f"{file}: not readable as JSON ({error})") from None
        version = header.get("format") if isinstance(header, dict) else None
        if version != FORMAT:
            raise RunError(f"{file}: run format {version!r}; this version of quincunx reads format {FORMAT}")
        missing = [key for key, kind in KEYS.items() if not isinstance(header.get(key), kind)]
        if missing:
            raise RunError(f"{file}: {', '.join(missing)} missing or not what it should be")
        for name, known in header["inputs"].items():
            if not Path(name).exists():
                raise RunError(f"{name}: is gone; the run in {path} reads it and cannot go on without")
            if digest(Path(name)) != known:
                raise RunError(f"{name}: has changed since the run in {path} was begun; it cannot go on with another")
        return cls(path, header)

    def log(self, step: int, metrics: Mapping[str, Tensor | float]) -> dict[str, Any]:
        """Append one line of metrics (a tensor [R] is one number a replica) and return it as written."""
        line: dict[str, Any] = {"step": step}
        for name, value in metrics.items():
            line[name] = plain(value)
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        board = self._tensorboard(step)
        for name, value in metrics.items():
            number = float(torch.as_tensor(value, dtype=torch.float64).nanmean())
            if math.isfinite(number):
                board.add_scalar(name, number, step)
        return line

    def metrics(self) -> list[dict[str, Any]]:
        """All logged lines, in order."""
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def save(self, step: int, state: Any) -> None:
        """Store a checkpoint (see `lab.checkpoint.save`)."""
        checkpoint.save(self.path / "checkpoint", step, state)

    def restore(self) -> checkpoint.Checkpoint | None:
        """The newest checkpoint, or None before the first one. Writes nothing."""
        folder = self.path / "checkpoint"
        return checkpoint.load(folder) if checkpoint.steps(folder) else None

    def rewind(self, step: int) -> None:
        """Drop the metrics logged after `step`: a run that goes on from there logs them again."""
        file = self.path / "metrics.jsonl"
        if file.exists():
            complete = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
            write(file, "".join(line for line in complete if json.loads(line)["step"] <= step))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write `result.json` and close the TensorBoard file."""
        write_json(self.path / "result.json", dict(result))
        if self._board is not None:
            self._board.close()
            self._board = None

    def _tensorboard(self, step: int) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, so only where something is logged

            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=step)
        return self._board


def digest(path: Path) -> str:
    """A checksum of a file, or of all files of a folder with their names."""
    found = hashlib.blake2b(digest_size=16)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            found.update(f"{file.relative_to(path)}:{file.stat().st_size}:".encode())
            found.update(file.read_bytes())
    return found.hexdigest()


def vacant(path: Path) -> None:
    """Raises RunError where a run stands already, or something else."""
    if (path / "config.json").exists():
        raise RunError(f"{path}: a run stands here already; continue it with `qx resume {path}` or give another --out")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(f"{path}: is {'a folder that is not empty' if path.is_dir() else 'a file'}; give another --out")


def next_free(parent: Path, name: str) -> Path:
    """`parent/name-1`, or the first number that is not taken."""
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


def plain(value: Any) -> Any:
    """The value as JSON can hold it: tensors become numbers or lists, what is not finite becomes None."""
    if isinstance(value, Tensor):
        value = value.detach().tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(path: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old or the new text."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: Any) -> None:
    """`write` of indented JSON."""
    write(path, json.dumps(plain(value), indent=1) + "\n")


def _circumstances() -> dict[str, Any]:
    """What a reader of the numbers will want to know: versions, commit, machine."""
    versions = {}
    for name in RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    here = Path(__file__).parent
    git = shutil.which("git")
    asked = [git or "git", "-C", str(here), "rev-parse", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() if git else ""
    return {
        "versions": versions,
        "python": platform.python_version(),
        "commit": commit or None,
        "threads": torch.get_num_threads(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
